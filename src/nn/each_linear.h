// Visits the linears that parts of a model have, in the order in which they run; each as const as the part is.
#pragma once
#include "nn/block.h"

namespace nibble::nn {

/// A linear without weight is one that the model does not have.
template <class L, class Visit>
void visit_present(L& linear, const Visit& visit) {
  if (!linear.weight.empty()) visit(linear);
}

template <class M, class Visit>
void each_mlp_linear(M& mlp, const Visit& visit) {
  for (auto* linear : {&mlp.gate, &mlp.up, &mlp.down}) visit_present(*linear, visit);
}

template <class A, class Visit>
void each_attention_linear(A& attention, const Visit& visit) {
  for (auto* linear : {&attention.q, &attention.k, &attention.v, &attention.qkv, &attention.o}) {
    visit_present(*linear, visit);
  }
}

template <class B, class Visit>
void each_block_linear(B& block, const Visit& visit) {
  each_attention_linear(block.attention, visit);
  each_mlp_linear(block.mlp, visit);
  visit_present(block.moe.router, visit);
  for (auto& expert : block.moe.experts) each_mlp_linear(expert, visit);
}

}  // namespace nibble::nn

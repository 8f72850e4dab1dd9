// What the guide's examples leave out: a look at the model that was loaded.
#pragma once
#include <nibble/nibble.h>

#include <iostream>

/// Prints a few greedy tokens after the ids 1, 5, 17, the memory that the weights take, and what was not needed.
inline void show(nibble::PreTrainedModel& model) {
  const nibble::TokenIds ids = model.generate(nibble::TokenIds{1, 5, 17}, {.max_new_tokens = 5, .do_sample = false});
  std::cout << "tokens:";
  for (const auto id : ids) std::cout << ' ' << id;
  std::cout << '\n'
            << "memory: " << model.get_memory_footprint() << " bytes; Transformers counts "
            << model.get_memory_footprint(/*as_transformers=*/true) << '\n';
  for (const std::string& note : model.notes()) std::cout << "note: " << note << '\n';
}

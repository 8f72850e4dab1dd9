#include "quant/common/allocate.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace nibble {
namespace {

/// Most steps in which the budget is handed out, and most entries of the table of choices.
constexpr std::int64_t kMostSteps = std::int64_t{1} << 16, kMostEntries = std::int64_t{1} << 27;

/// One part's choices by rising size, as steps beyond its smallest.
struct Offer {
  std::size_t choice = 0;
  std::int64_t steps = 0;
  double cost = 0;
};

std::int64_t smallest_of(const std::vector<SizeChoice>& part) {
  check(!part.empty(), "allocate: a part without choices");
  return std::min_element(part.begin(), part.end(),
                          [](const SizeChoice& a, const SizeChoice& b) { return a.bytes < b.bytes; })
      ->bytes;
}

std::vector<Offer> offers_of(const std::vector<SizeChoice>& part, std::int64_t step) {
  const std::int64_t smallest = smallest_of(part);
  std::vector<Offer> offers;
  for (std::size_t i = 0; i < part.size(); ++i) {
    offers.push_back({i, (part[i].bytes - smallest + step - 1) / step, part[i].cost});
  }
  std::stable_sort(offers.begin(), offers.end(), [](const Offer& a, const Offer& b) { return a.steps < b.steps; });
  return offers;
}

}  // namespace

std::vector<std::size_t> allocate(std::span<const std::vector<SizeChoice>> parts, std::int64_t budget) {
  std::int64_t left = budget, step = 0;
  for (const std::vector<SizeChoice>& part : parts) {
    const std::int64_t smallest = smallest_of(part);
    left -= smallest;
    for (const SizeChoice& choice : part) step = std::gcd(step, choice.bytes - smallest);
  }
  if (left < 0) return {};
  const auto count = static_cast<std::int64_t>(parts.size());
  const std::int64_t most =
      std::max<std::int64_t>(1, std::min(kMostSteps, kMostEntries / std::max<std::int64_t>(count, 1)));
  step = std::max({step, std::int64_t{1}, (left + most - 1) / most});
  const std::int64_t steps = left / step;

  // least[s]: the least cost of the parts so far with at most s steps; taken[p][s]: the offer of part p in it.
  std::vector<double> least(static_cast<std::size_t>(steps + 1), 0.0), next(least.size());
  std::vector<std::vector<std::uint8_t>> taken;
  std::vector<std::vector<Offer>> all;
  for (const std::vector<SizeChoice>& part : parts) {
    check(part.size() < 256, "allocate: too many choices");
    all.push_back(offers_of(part, step));
    taken.emplace_back(least.size());
    for (std::int64_t s = 0; s <= steps; ++s) {
      double best = std::numeric_limits<double>::infinity();
      for (std::size_t i = 0; i < all.back().size() && all.back()[i].steps <= s; ++i) {
        const double cost = all.back()[i].cost + least[static_cast<std::size_t>(s - all.back()[i].steps)];
        if (!(cost < best)) continue;
        best = cost;
        taken.back()[static_cast<std::size_t>(s)] = static_cast<std::uint8_t>(i);
      }
      next[static_cast<std::size_t>(s)] = best;
    }
    std::swap(least, next);
  }
  std::vector<std::size_t> chosen(parts.size());
  std::int64_t at = steps;
  for (std::size_t p = parts.size(); p-- > 0;) {
    const Offer& offer = all[p][taken[p][static_cast<std::size_t>(at)]];
    chosen[p] = offer.choice;
    at -= offer.steps;
  }
  return chosen;
}

}  // namespace nibble

#include "concord/runtime/versions.h"

#include <algorithm>
#include <cstring>

#include "concord/base/error.h"

namespace concord {

Versions::Versions(std::size_t bytes, int older)
    : bytes_(bytes),
      memory_(bytes * static_cast<std::size_t>(older + 1)),
      updates_(static_cast<std::size_t>(older + 1), 0) {}

// The newest lies first, the others in a ring behind it.
std::size_t Versions::place(int age) const {
  CONCORD_CHECK(age >= 0 && age <= older(), "a version of age {}, of {}", age, older());
  if (age == 0) return 0;
  const auto ring = static_cast<std::size_t>(older());
  return 1 + (last_ + ring - static_cast<std::size_t>(age - 1)) % ring;
}

void Versions::keep() {
  if (older() > 0) {
    last_ = (last_ + 1) % static_cast<std::size_t>(older());
    std::memcpy(data(1), data(0), bytes_);
    updates_[place(1)] = updates_[0];
  }
  ++updates_[0];
}

void Versions::restart() {
  for (int age = 1; age <= older(); ++age) {
    std::memcpy(data(age), data(0), bytes_);
    updates_[place(age)] = updates_[0];
  }
}

void Versions::set_updates(std::int64_t updates) {
  for (int age = 0; age <= older(); ++age) {
    updates_[place(age)] = std::max<std::int64_t>(0, updates - age);
  }
}

}  // namespace concord

#include "concord/graph/attributes.h"

#include <algorithm>

#include "concord/base/error.h"

namespace concord {

void Attributes::set(std::string_view name, Attribute value) {
  const auto place =
      std::lower_bound(list_.begin(), list_.end(), name,
                       [](const auto& entry, std::string_view n) { return entry.first < n; });
  if (place != list_.end() && place->first == name) {
    place->second = std::move(value);
  } else {
    list_.emplace(place, std::string(name), std::move(value));
  }
}

const Attribute* Attributes::find(std::string_view name) const {
  for (const auto& [key, value] : list_) {
    if (key == name) return &value;
  }
  return nullptr;
}

template <typename T>
const T& Attributes::get(std::string_view name) const {
  const Attribute* attribute = find(name);
  CONCORD_CHECK(attribute != nullptr, "no attribute \"{}\"", name);
  const T* value = std::get_if<T>(attribute);
  CONCORD_CHECK(value != nullptr, "attribute \"{}\" has another type", name);
  return *value;
}

template const std::int64_t& Attributes::get<std::int64_t>(std::string_view) const;
template const double& Attributes::get<double>(std::string_view) const;
template const std::string& Attributes::get<std::string>(std::string_view) const;
template const std::vector<std::int64_t>& Attributes::get<std::vector<std::int64_t>>(
    std::string_view) const;

}  // namespace concord

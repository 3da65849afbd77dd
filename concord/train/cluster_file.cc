#include "concord/train/cluster_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/train/toml_text.h"

namespace concord::train {
namespace {

using parallel::Cluster;
using parallel::HostKind;
using parallel::Link;

constexpr std::size_t kMaximumFileBytes = std::size_t{1} << 20;
constexpr std::int64_t kMostRanks = 1 << 16;

// A table of the file, whose keys are taken one by one; in the end none may be left.
class Section {
 public:
  Section(std::string_view file, std::string name, const toml::table& table)
      : where_(fmt::format("{}:{}: {}", file, table.source().begin.line, name)), table_(table) {}

  const std::string& where() const { return where_; }
  bool has(std::string_view key) const { return table_.contains(key); }

  double positive(std::string_view key) {
    const auto value = take(key).value<double>();
    if (!value || !(*value > 0) || !std::isfinite(*value)) {
      fail("{}: {}: expected a number above 0", where_, key);
    }
    return *value;
  }
  int count(std::string_view key) {
    const toml::node& node = take(key);
    const auto value = node.is_integer() ? node.value<std::int64_t>() : std::nullopt;
    if (!value || *value < 1 || *value > kMostRanks) {
      fail("{}: {}: expected an integer from 1 to {}", where_, key, kMostRanks);
    }
    return static_cast<int>(*value);
  }
  std::string text(std::string_view key) {
    const toml::node& node = take(key);
    if (!node.is_string() || node.value<std::string>()->empty()) {
      fail("{}: {}: expected a name in quotes", where_, key);
    }
    return *node.value<std::string>();
  }
  const toml::node& take(std::string_view key) {
    known_.emplace_back(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) fail("{}: expected {}", where_, key);
    return *node;
  }
  // `others`: keys that might have been there.
  void check_rest(std::span<const std::string_view> others) const {
    std::vector<std::string_view> all(known_.begin(), known_.end());
    all.insert(all.end(), others.begin(), others.end());
    for (const auto& [key, node] : table_) {
      if (std::ranges::count(known_, key.str()) > 0) continue;
      fail("{}: unknown key {}; did you mean {}?", where_, shortened(quote(key.str())),
           nearest(key.str(), all));
    }
  }

 private:
  std::string where_;
  const toml::table& table_;
  std::vector<std::string> known_;
};

Link link_of(Section& section) {
  return {section.positive("bytes_per_second"), section.positive("latency_seconds")};
}

HostKind host_of(Section section) {
  HostKind host{.name = section.text("name")};
  if (section.has("count")) host.count = section.count("count");
  if (section.has("ranks") == section.has("gpus")) {
    fail("{}: expected either ranks, or gpus", section.where());
  }
  if (section.has("gpus")) {
    host.ranks = section.count("gpus");
    host.processor = parallel::Processor{section.positive("flops_per_second"),
                                         section.positive("memory_bytes_per_second")};
  } else {
    host.ranks = section.count("ranks");
    if (section.has("speed")) host.speed = section.positive("speed");
  }
  constexpr std::string_view kOthers[] = {"count", "speed"};
  section.check_rest(kOthers);
  return host;
}

int kind_named(const Cluster& cluster, const Section& section, const std::string& name) {
  std::vector<std::string_view> names;
  for (const HostKind& kind : cluster.kinds) {
    if (kind.name == name) return static_cast<int>(names.size());
    names.push_back(kind.name);
  }
  fail("{}: there are no hosts {}: expected two of {}", section.where(), shortened(quote(name)),
       shortened(fmt::format("{}", fmt::join(names, ", ")), 200));
}

std::vector<const toml::table*> tables_of(std::string_view file, const toml::table& root,
                                          std::string_view name) {
  std::vector<const toml::table*> tables;
  const toml::node* node = root.get(name);
  if (node == nullptr) return tables;
  const toml::array* array = node->as_array();
  if (array == nullptr || !array->is_array_of_tables()) {
    fail("{}:{}: {}: expected [[{}]]", file, node->source().begin.line, name, name);
  }
  for (const toml::node& one : *array) tables.push_back(one.as_table());
  return tables;
}

std::optional<Link> link_named(std::string_view file, const toml::table& root,
                               std::string_view name) {
  const toml::node* node = root.get(name);
  if (node == nullptr) return std::nullopt;
  if (!node->is_table()) {
    fail("{}:{}: {}: expected [{}]", file, node->source().begin.line, name, name);
  }
  Section section(file, fmt::format("[{}]", name), *node->as_table());
  const Link link = link_of(section);
  section.check_rest({});
  return link;
}

}  // namespace

Cluster parse_cluster(std::string_view text, std::string_view file_name) {
  const toml::table root = parse_toml(text, file_name);
  constexpr std::string_view kKnown[] = {"hosts", "inside", "between", "links"};
  for (const auto& [key, node] : root) {
    if (std::ranges::count(kKnown, key.str()) > 0) continue;
    fail("{}:{}: unknown section {}; did you mean {}?", file_name, key.source().begin.line,
         shortened(quote(key.str())), nearest(key.str(), kKnown));
  }
  Cluster cluster;
  std::int64_t ranks = 0;
  for (const toml::table* table : tables_of(file_name, root, "hosts")) {
    const Section section(file_name, "[[hosts]]", *table);
    HostKind host = host_of(section);
    for (const HostKind& other : cluster.kinds) {
      if (other.name == host.name) {
        fail("{}: there are hosts {} already: expected another name", section.where(),
             shortened(quote(host.name)));
      }
    }
    ranks += std::int64_t{host.count} * host.ranks;
    if (ranks > kMostRanks) {
      fail("{}: {} ranks in all: expected at most {}", section.where(), ranks, kMostRanks);
    }
    cluster.kinds.push_back(std::move(host));
  }
  if (cluster.kinds.empty()) fail("{}: expected at least one of [[hosts]]", file_name);
  cluster.inside = link_named(file_name, root, "inside");
  cluster.between = link_named(file_name, root, "between");
  for (const toml::table* table : tables_of(file_name, root, "links")) {
    Section section(file_name, "[[links]]", *table);
    const toml::array* names = section.take("hosts").as_array();
    if (names == nullptr || names->size() != 2 || !names->is_homogeneous<std::string>()) {
      fail("{}: hosts: expected the names of two kinds of hosts", section.where());
    }
    const int one = kind_named(cluster, section, **names->get(0)->as_string());
    const int other = kind_named(cluster, section, **names->get(1)->as_string());
    cluster.links[std::minmax(one, other)] = link_of(section);
    section.check_rest({});
  }
  return cluster;
}

Cluster read_cluster(const std::filesystem::path& path) {
  return parse_cluster(read_file(path, kMaximumFileBytes), path.string());
}

std::string to_toml(const Cluster& cluster) {
  std::string text;
  const auto add_link = [&](const Link& link) {
    text += fmt::format("bytes_per_second = {}\nlatency_seconds = {}\n\n", link.bytes_per_second,
                        link.latency_seconds);
  };
  for (const HostKind& kind : cluster.kinds) {
    text += fmt::format("[[hosts]]\nname = {}\ncount = {}\n{} = {}\n", quote(kind.name), kind.count,
                        kind.processor ? "gpus" : "ranks", kind.ranks);
    if (kind.processor) {
      text +=
          fmt::format("flops_per_second = {}\nmemory_bytes_per_second = {}\n",
                      kind.processor->flops_per_second, kind.processor->memory_bytes_per_second);
    } else {
      text += fmt::format("speed = {}\n", kind.speed);
    }
    text += "\n";
  }
  for (const auto& [name, link] :
       {std::pair("inside", &cluster.inside), std::pair("between", &cluster.between)}) {
    if (!*link) continue;
    text += fmt::format("[{}]\n", name);
    add_link(**link);
  }
  for (const auto& [kinds, link] : cluster.links) {
    const auto name = [&](int kind) {
      return quote(cluster.kinds[static_cast<std::size_t>(kind)].name);
    };
    text += fmt::format("[[links]]\nhosts = [{}, {}]\n", name(kinds.first), name(kinds.second));
    add_link(link);
  }
  return text;
}

}  // namespace concord::train

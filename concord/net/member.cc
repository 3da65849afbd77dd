#include "concord/net/member.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "concord/base/error.h"
#include "concord/base/text.h"

namespace concord::net {
namespace {

constexpr const char* kRank = "CONCORD_RANK";
constexpr const char* kRanks = "CONCORD_RANKS";
constexpr const char* kStore = "CONCORD_STORE";
constexpr const char* kSecret = "CONCORD_SECRET";
constexpr const char* kTerminal = "CONCORD_TERMINAL";

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr) {
    fail("the environment has CONCORD_RANK but no {}: start ranks by concord launch", name);
  }
  return value;
}

int number(const char* name, int least, int most) {
  const std::string text = variable(name);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    fail("{} = {} in the environment: expected {} to {}", name, quote(text), least, most);
  }
  return value;
}

Endpoint parse_endpoint(const std::string& text, std::string_view source) {
  const std::size_t colon = text.rfind(':');
  int port = 0;
  if (colon != std::string::npos) {
    const char* const end = text.data() + text.size();
    if (std::from_chars(text.data() + colon + 1, end, port).ptr != end) port = 0;
  }
  if (port < 1 || port > 65535 || colon == 0) {
    fail("{} = {}: expected host:port", source, quote(text));
  }
  std::string host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return {host, static_cast<std::uint16_t>(port)};
}

}  // namespace

std::optional<Member> Member::from_environment() {
  if (std::getenv(kRank) == nullptr) return std::nullopt;
  constexpr int kMost = 1 << 20;
  Member member;
  member.size = number(kRanks, 1, kMost);
  member.rank = number(kRank, 0, member.size - 1);
  member.store = parse_endpoints(variable(kStore), "CONCORD_STORE in the environment");
  member.secret = Secret::from_hex(variable(kSecret));
  unsetenv(kSecret);
  return member;
}

std::vector<std::string> Member::to_environment(int terminal) const {
  std::vector<std::string> variables = {fmt::format("{}={}", kRank, rank),
                                        fmt::format("{}={}", kRanks, size),
                                        fmt::format("{}={}", kStore, to_string(store)),
                                        fmt::format("{}={}", kSecret, secret.to_hex())};
  if (terminal >= 0) variables.push_back(fmt::format("{}={}", kTerminal, terminal));
  return variables;
}

bool Member::is_variable(std::string_view variable) {
  const std::string_view name = variable.substr(0, variable.find('='));
  return std::ranges::count(
             std::initializer_list<std::string_view>{kRank, kRanks, kStore, kSecret, kTerminal},
             name) > 0;
}

std::vector<Endpoint> parse_endpoints(const std::string& text, std::string_view source) {
  std::vector<Endpoint> endpoints;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    endpoints.push_back(parse_endpoint(text.substr(begin, end - begin), source));
    begin = end + 1;
  }
  return endpoints;
}

std::string to_string(const std::vector<Endpoint>& endpoints) {
  std::string text;
  for (const Endpoint& endpoint : endpoints) {
    text += (text.empty() ? "" : ",") + to_string(endpoint);
  }
  return text;
}

int shown_on_terminal() {
  if (isatty(STDERR_FILENO) == 1) return STDERR_FILENO;
  const char* const given = std::getenv(kTerminal);
  if (given == nullptr) return -1;
  const int descriptor = std::atoi(given);
  return descriptor > 0 && isatty(descriptor) == 1 ? descriptor : -1;
}

}  // namespace concord::net

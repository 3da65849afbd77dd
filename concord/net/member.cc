#include "concord/net/member.h"

#include <charconv>
#include <cstdlib>

#include "concord/base/error.h"
#include "concord/base/text.h"

namespace concord::net {
namespace {

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr) {
    fail("the environment has CONCORD_RANK but no {}: start ranks by concord train --ranks", name);
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

Endpoint endpoint(const char* name) {
  const std::string text = variable(name);
  const std::size_t colon = text.rfind(':');
  int port = 0;
  if (colon != std::string::npos) {
    const char* const end = text.data() + text.size();
    if (std::from_chars(text.data() + colon + 1, end, port).ptr != end) port = 0;
  }
  if (port < 1 || port > 65535) {
    fail("{} = {} in the environment: expected host:port", name, quote(text));
  }
  std::string host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return {host, static_cast<std::uint16_t>(port)};
}

}  // namespace

std::optional<Member> Member::from_environment() {
  if (std::getenv("CONCORD_RANK") == nullptr) return std::nullopt;
  constexpr int kMost = 1 << 20;
  Member member;
  member.size = number("CONCORD_RANKS", 1, kMost);
  member.rank = number("CONCORD_RANK", 0, member.size - 1);
  member.store = endpoint("CONCORD_STORE");
  member.secret = Secret::from_hex(variable("CONCORD_SECRET"));
  unsetenv("CONCORD_SECRET");
  return member;
}

std::vector<std::string> Member::to_environment() const {
  return {fmt::format("CONCORD_RANK={}", rank), fmt::format("CONCORD_RANKS={}", size),
          "CONCORD_STORE=" + to_string(store), "CONCORD_SECRET=" + secret.to_hex()};
}

}  // namespace concord::net

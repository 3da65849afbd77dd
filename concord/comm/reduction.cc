#include "concord/comm/reduction.h"

#include <algorithm>

#include "concord/base/share.h"
#include "concord/comm/communicator.h"

namespace concord::comm {
namespace {

constexpr std::size_t kChunk = std::size_t{4} << 20;  // bytes
constexpr std::size_t kPiece = 128 << 10;             // bytes, of a chain
// Up to so many bytes the time is that of messages, not of bytes.
constexpr std::size_t kFew = 16 << 10;

float* floats(std::byte* data) { return reinterpret_cast<float*>(data); }
const float* floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }
std::int64_t floats_in(std::size_t bytes) {
  return static_cast<std::int64_t>(bytes / sizeof(float));
}
std::size_t bytes_of(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

}  // namespace

Reduction::Reduction(Channel& channel, Topology topology, bool any_order)
    : channel_(channel),
      topology_(std::move(topology)),
      any_order_(any_order),
      rank_(channel.rank()),
      size_(channel.size()),
      terms_(static_cast<std::size_t>(channel.size())) {}

void Reduction::sum(Algorithm algorithm, std::span<const Part> parts, std::size_t offset,
                    std::size_t bytes, std::byte* out) {
  if (algorithm == Algorithm::kAuto) algorithm = fastest_algorithm(topology_, bytes);
  if (algorithm == Algorithm::kChain) return reduce_along_chain(parts, offset, bytes, out);
  std::size_t begin = 0;
  do {
    const std::size_t size = std::min(kChunk, bytes - begin);
    const Chunk chunk{parts, offset + begin, floats_in(size), floats(out + begin)};
    staged_ = 0;
    if (algorithm == Algorithm::kHalvingDoubling) {
      halve_and_double(chunk, /*halves=*/bytes > kFew);
    } else if (algorithm == Algorithm::kDirect) {
      reduce_directly(chunk);
    } else if (algorithm == Algorithm::kHierarchical) {
      reduce_by_hosts(chunk);
    } else {
      reduce_around_ring(chunk);
    }
    begin += size;
  } while (begin < bytes);
}

void Reduction::halve_and_double(const Chunk& chunk, bool halves) {
  take_own(chunk, own_);
  kept_.clear();
  sent_.clear();
  Range range{0, chunk.count};
  for (int bit = 1; bit < size_; bit *= 2) {
    const int other = rank_ ^ bit;
    const std::int64_t middle = range.begin + Share{0, 2}.of(range.size()).second;
    Range kept = range, sent = range;
    if (halves) {
      (other > rank_ ? kept.end : kept.begin) = middle;
      (other > rank_ ? sent.begin : sent.end) = middle;
    }
    channel_.greet(other, nodes_of(own_));
    for (const Term& term : own_) send(other, term.data + sent.begin - range.begin, sent.size());
    take_from(other, kept.size(), theirs_);
    channel_.wait_all();
    for (Term& term : own_) term.data += kept.begin - range.begin;
    if (other < rank_) own_.swap(theirs_);
    join(own_, theirs_, kept.size());
    if (std::ranges::all_of(own_, &Term::is_own)) staged_ = 0;
    range = kept;
    kept_.push_back(kept);
    sent_.push_back(sent);
  }
  finish(own_, range.size(), chunk.out + range.begin);
  if (!halves) return;
  for (std::size_t round = kept_.size(); round-- > 0;) {
    const int other = rank_ ^ (1 << round);
    send(other, chunk.out + kept_[round].begin, kept_[round].size());
    receive(other, chunk.out + sent_[round].begin, sent_[round].size());
    channel_.wait_all();
  }
}

void Reduction::reduce_directly(const Chunk& chunk) {
  const Range whole{0, chunk.count};
  take_own(chunk, own_);
  const Range own = exchange_terms(all(), whole);
  add_up_terms(all(), own.size(), chunk.out + own.begin);
  gather(all(), whole, chunk.out);
}

void Reduction::reduce_by_hosts(const Chunk& chunk) {
  const int each = topology_.ranks_of_each_host();
  const Group host{rank_ / each * each, 1, each}, across{rank_ % each, each, size_ / each};
  const Range whole{0, chunk.count};
  take_own(chunk, own_);
  const Range of_host = exchange_terms(host, whole);
  join_terms(host, of_host.size());
  const Range own = exchange_terms(across, of_host);
  add_up_terms(across, own.size(), chunk.out + own.begin);
  gather(across, of_host, chunk.out);
  gather(host, whole, chunk.out);
}

Reduction::Range Reduction::share_of(const Group& group, int rank, Range range) const {
  const auto [begin, end] = Share{group.place_of(rank), group.count}.of(range.size());
  return {range.begin + begin, range.begin + end};
}

Reduction::Range Reduction::exchange_terms(const Group& group, Range range) {
  const int place = group.place_of(rank_);
  const Range own = share_of(group, rank_, range);
  for (int i = 1; i < group.count; ++i) channel_.greet(group.rank_at(place + i), nodes_of(own_));
  for (int i = 1; i < group.count; ++i) {
    const int to = group.rank_at(place + i), from = group.rank_at(place - i);
    const Range theirs = share_of(group, to, range);
    take_from(from, own.size(), terms_[static_cast<std::size_t>(from)]);
    for (const Term& term : own_) send(to, term.data + theirs.begin - range.begin, theirs.size());
  }
  channel_.wait_all();
  for (Term& term : own_) term.data += own.begin - range.begin;
  terms_[static_cast<std::size_t>(rank_)].swap(own_);
  return own;
}

void Reduction::join_terms(const Group& group, std::int64_t count) {
  own_.clear();
  for (int place = 0; place < group.count; ++place) {
    join(own_, terms_[static_cast<std::size_t>(group.rank_at(place))], count);
  }
}

void Reduction::add_up_terms(const Group& group, std::int64_t count, float* out) {
  nodes_.clear();
  sources_.clear();
  for (int place = 0; place < group.count; ++place) {
    for (const Term& term : terms_[static_cast<std::size_t>(group.rank_at(place))]) {
      nodes_.push_back(term.node);
      sources_.push_back(term.data);
    }
  }
  CONCORD_CHECK(!nodes_.empty(), "a sum of nothing");
  tiles_.plan(joins_.of(nodes_), sources_.size());
  tiles_.run(sources_, {{out}}, 0, count);
}

void Reduction::gather(const Group& group, Range range, float* out) {
  const int place = group.place_of(rank_);
  const Range own = share_of(group, rank_, range);
  for (int i = 1; i < group.count; ++i) {
    const int to = group.rank_at(place + i), from = group.rank_at(place - i);
    const Range theirs = share_of(group, from, range);
    send(to, out + own.begin, own.size());
    receive(from, out + theirs.begin, theirs.size());
  }
  channel_.wait_all();
}

void Reduction::reduce_around_ring(const Chunk& chunk) {
  const int right = (rank_ + 1) % size_, left = (rank_ + size_ - 1) % size_;
  // The piece that begins its way at rank r, or at one so many before it.
  const auto piece = [&](int r) {
    const auto [begin, end] = Share{(r + size_) % size_, size_}.of(chunk.count);
    return Range{begin, end};
  };
  take_own(chunk, own_);  // to `out`
  if (size_ == 1) return;
  channel_.greet(right);
  channel_.meet(left);
  float* const incoming = stage(chunk.count / size_ + 32);  // the longest piece, and more
  for (int i = 0; i < size_ - 1; ++i) {
    const Range out = piece(rank_ - i), in = piece(rank_ - i - 1);
    send(right, chunk.out + out.begin, out.size());
    receive(left, incoming, in.size());
    channel_.wait_all();
    add_floats(reinterpret_cast<std::byte*>(chunk.out + in.begin),
               reinterpret_cast<const std::byte*>(incoming), bytes_of(in.size()));
  }
  for (int i = 0; i < size_ - 1; ++i) {
    const Range out = piece(rank_ + 1 - i), in = piece(rank_ - i);
    send(right, chunk.out + out.begin, out.size());
    receive(left, chunk.out + in.begin, in.size());
    channel_.wait_all();
  }
}

// While a piece is received, the one before it is sent on: terms that are sent stay where they are
// meanwhile.
void Reduction::reduce_along_chain(std::span<const Part> parts, std::size_t offset,
                                   std::size_t bytes, std::byte* out) {
  const bool is_first = rank_ == 0, is_last = rank_ == size_ - 1;
  const std::size_t pieces = (bytes + kPiece - 1) / kPiece;
  std::int64_t sent_count = 0;
  for (std::size_t i = 0; i <= pieces; ++i) {
    const bool takes = i < pieces;
    const std::size_t begin = i * kPiece;
    const Chunk chunk{parts, offset + begin, takes ? floats_in(std::min(kPiece, bytes - begin)) : 0,
                      floats(out + begin)};
    std::vector<Term>& incoming = terms_[0];
    incoming.clear();
    if (i % 2 == 0) staged_ = 0;  // the other half is in use
    if (takes && !is_first) take_from(rank_ - 1, chunk.count, incoming);
    if (i > 0 && !is_last) {
      channel_.greet(rank_ + 1, nodes_of(theirs_));
      for (const Term& term : theirs_) send(rank_ + 1, term.data, sent_count);
    }
    channel_.wait_all();
    if (!takes) break;
    theirs_.assign(incoming.begin(), incoming.end());
    take_own(chunk, own_);
    join(theirs_, own_, chunk.count);
    sent_count = chunk.count;
    if (is_last) finish(theirs_, chunk.count, chunk.out);
  }
  chain_from({out, bytes}, size_ - 1);
}

void Reduction::scatter_parts(std::span<const Part> parts, std::span<const Piece> pieces,
                              std::byte* out) {
  std::size_t total = 0;
  runs_.clear();
  for (const Piece& piece : pieces) {
    for (std::size_t begin = 0; begin < piece.part_bytes;) {
      const std::size_t size = std::min(kChunk - total, piece.part_bytes - begin);
      runs_.push_back({&piece, begin, size});
      begin += size;
      total += size;
      if (total < kChunk) continue;
      scatter_runs(parts, out);
      runs_.clear();
      total = 0;
    }
  }
  if (!runs_.empty()) scatter_runs(parts, out);
}

// Each rank gets its part of every run from all others, and adds up.
void Reduction::scatter_runs(std::span<const Part> parts, std::byte* out) {
  const auto place = [](const Run& run, int r) {
    return run.piece->offset + static_cast<std::size_t>(r) * run.piece->part_bytes + run.begin;
  };
  std::int64_t total = 0;
  for (const Run& run : runs_) total += floats_in(run.bytes);
  staged_ = 0;
  nodes_.clear();
  for (const Part& part : parts) nodes_.push_back(part.node);
  greet_all(nodes_);
  for (int i = 1; i < size_; ++i) {
    const int to = (rank_ + i) % size_, from = (rank_ + size_ - i) % size_;
    for (const Part& part : parts) {
      for (const Run& run : runs_) {
        send(to, floats(part.data + place(run, to)), floats_in(run.bytes));
      }
    }
    std::vector<Term>& terms = terms_[static_cast<std::size_t>(from)];
    terms.clear();
    for (const Subtree& node : channel_.meet(from).known_nodes()) {
      float* at = stage(total);
      terms.push_back({node, at, /*is_own=*/false});
      for (const Run& run : runs_) {
        receive(from, at, floats_in(run.bytes));
        at += floats_in(run.bytes);
      }
    }
  }
  channel_.wait_all();
  std::int64_t done = 0;
  for (const Run& run : runs_) {
    nodes_.clear();
    sources_.clear();
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) {
        for (const Part& part : parts) {
          nodes_.push_back(part.node);
          sources_.push_back(floats(part.data + place(run, rank_)));
        }
        continue;
      }
      for (const Term& term : terms_[static_cast<std::size_t>(r)]) {
        nodes_.push_back(term.node);
        sources_.push_back(term.data + done);
      }
    }
    CONCORD_CHECK(!nodes_.empty(), "a sum of nothing");
    tiles_.plan(joins_.of(nodes_), sources_.size());
    float* const sum = floats(out + run.piece->out_offset + run.begin);
    tiles_.run(sources_, {{sum}}, 0, floats_in(run.bytes));
    done += floats_in(run.bytes);
  }
}

void Reduction::scatter(const std::byte* in, std::size_t bytes, std::byte* out) {
  greet_all({});
  std::size_t begin = 0;
  do {
    const std::size_t size = std::min(kChunk, bytes - begin);
    const std::int64_t count = floats_in(size);
    const auto piece = [&](int r) {
      return floats(in + static_cast<std::size_t>(r) * bytes + begin);
    };
    staged_ = 0;
    nodes_.clear();
    sources_.clear();
    for (int r = 0; r < size_; ++r) {
      nodes_.push_back({0, r});
      sources_.push_back(r == rank_ ? piece(r) : stage(count));
    }
    for (int i = 1; i < size_; ++i) {
      const int to = (rank_ + i) % size_, from = (rank_ + size_ - i) % size_;
      send(to, piece(to), count);
      channel_.meet(from);
      receive(from, const_cast<float*>(sources_[static_cast<std::size_t>(from)]), count);
    }
    channel_.wait_all();
    tiles_.plan(joins_.of(nodes_), sources_.size());
    tiles_.run(sources_, {{floats(out + begin)}}, 0, count);
    begin += size;
  } while (begin < bytes);
}

// As reduce_directly: each rank has its share from all.
void Reduction::maximum(std::span<std::byte> data) {
  std::size_t begin = 0;
  do {
    const std::size_t size = std::min(kChunk, data.size() - begin);
    float* const numbers = floats(data.data() + begin);
    const Range whole{0, floats_in(size)}, own = share_of(all(), rank_, whole);
    staged_ = 0;
    own_.clear();
    for (int r = 0; r < size_; ++r) {
      own_.push_back({{0, r}, r == rank_ ? numbers + own.begin : stage(own.size()), r == rank_});
    }
    greet_all({});
    for (int i = 1; i < size_; ++i) {
      const int to = (rank_ + i) % size_, from = (rank_ + size_ - i) % size_;
      const Range theirs = share_of(all(), to, whole);
      send(to, numbers + theirs.begin, theirs.size());
      channel_.meet(from);
      receive(from, own_[static_cast<std::size_t>(from)].data, own.size());
    }
    channel_.wait_all();
    for (int r = 1; r < size_; ++r) {
      keep_larger(own_[0].data, own_[static_cast<std::size_t>(r)].data, own.size());
    }
    if (rank_ > 0) std::copy_n(own_[0].data, own.size(), numbers + own.begin);
    gather(all(), whole, numbers);
    begin += size;
  } while (begin < data.size());
}

bool Reduction::broadcasts_by_tree(int size, std::size_t bytes) {
  return bytes <= kPiece || size == 2;
}

void Reduction::broadcast(std::span<std::byte> data, int root) {
  if (broadcasts_by_tree(size_, data.size())) {
    binomial_tree(data, root);
  } else {
    chain_from(data, root);
  }
}

std::size_t Reduction::bytes() const {
  std::size_t bytes = 0;
  for (const Buffer& buffer : staging_) bytes += buffer.bytes();
  return bytes;
}

void Reduction::binomial_tree(std::span<std::byte> data, int root) {
  const int place = (rank_ + size_ - root) % size_;  // the root's is 0
  const auto rank_at = [&](int p) { return (p + root) % size_; };
  const int from_bit = place == 0 ? 0 : place & -place;
  if (place > 0) {
    const int from = rank_at(place - from_bit);
    channel_.meet(from);
    channel_.receive(from, data);
    channel_.wait_all();
  }
  const int highest = static_cast<int>(std::bit_ceil(static_cast<unsigned>(size_)));
  for (int bit = (place == 0 ? highest : from_bit) / 2; bit > 0; bit /= 2) {
    if (place + bit >= size_) continue;
    channel_.greet(rank_at(place + bit));
    channel_.send(rank_at(place + bit), data);
  }
  channel_.wait_all();
}

void Reduction::chain_from(std::span<std::byte> data, int root) {
  const int place = (rank_ + size_ - root) % size_;
  const int right = (rank_ + 1) % size_, left = (rank_ + size_ - 1) % size_;
  const std::size_t pieces = (data.size() + kPiece - 1) / kPiece;
  const auto piece = [&](std::size_t i) {
    return data.subspan(i * kPiece, std::min(kPiece, data.size() - i * kPiece));
  };
  for (std::size_t i = 0; i <= pieces; ++i) {
    if (i < pieces && place > 0) {
      channel_.meet(left);
      channel_.receive(left, piece(i));
    }
    if (i > 0 && place < size_ - 1) {
      channel_.greet(right);
      channel_.send(right, piece(i - 1));
    }
    channel_.wait_all();
  }
}

void Reduction::greet_all(std::span<const Subtree> nodes) {
  for (int i = 1; i < size_; ++i) channel_.greet((rank_ + i) % size_, nodes);
}

std::span<const Subtree> Reduction::nodes_of(std::span<const Term> terms) {
  nodes_.clear();
  for (const Term& term : terms) nodes_.push_back(term.node);
  return nodes_;
}

void Reduction::take_own(const Chunk& chunk, std::vector<Term>& terms) {
  terms.clear();
  for (const Part& part : chunk.parts) {
    terms.push_back({part.node, floats(part.data + chunk.offset), /*is_own=*/true});
  }
  if (!any_order_) return;
  if (terms.empty()) {
    std::fill_n(chunk.out, chunk.count, 0.0f);
  } else {
    finish(terms, chunk.count, chunk.out);
  }
  terms.assign(1, {{0, rank_}, chunk.out, /*is_own=*/true});
}

void Reduction::take_from(int rank, std::int64_t count, std::vector<Term>& terms) {
  terms.clear();
  for (const Subtree& node : channel_.meet(rank).known_nodes()) {
    terms.push_back({node, stage(count), /*is_own=*/false});
    receive(rank, terms.back().data, count);
  }
}

float* Reduction::stage(std::int64_t count) {
  if (staged_ == staging_.size()) staging_.emplace_back();
  Buffer& buffer = staging_[staged_++];
  if (buffer.bytes() < bytes_of(count)) buffer = Buffer(bytes_of(count));
  return floats(buffer.data());
}

void Reduction::join(std::vector<Term>& left, std::span<const Term> right, std::int64_t count) {
  for (const Term& term : right) {
    left.push_back(term);
    join_halves(left, [&] { join_last_two(left, count); });
  }
}

void Reduction::finish(std::vector<Term>& terms, std::int64_t count, float* out) {
  CONCORD_CHECK(!terms.empty(), "a sum of nothing");
  while (terms.size() > 1) join_last_two(terms, count);
  if (terms[0].data != out) std::copy_n(terms[0].data, count, out);
}

// In memory of this rank, where one of them is there: staging is for others soon.
void Reduction::join_last_two(std::vector<Term>& terms, std::int64_t count) {
  Term last = terms.back();
  terms.pop_back();
  Term& sum = terms.back();
  if (last.is_own && !sum.is_own) {
    std::swap(sum.data, last.data);
    std::swap(sum.is_own, last.is_own);
  }
  add_floats(reinterpret_cast<std::byte*>(sum.data), reinterpret_cast<const std::byte*>(last.data),
             bytes_of(count));
}

void Reduction::send(int to, const float* data, std::int64_t count) {
  channel_.send(to, std::as_bytes(std::span(data, static_cast<std::size_t>(count))));
}

void Reduction::receive(int from, float* data, std::int64_t count) {
  channel_.receive(from, std::as_writable_bytes(std::span(data, static_cast<std::size_t>(count))));
}

}  // namespace concord::comm

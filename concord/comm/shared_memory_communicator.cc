#include "concord/comm/shared_memory_communicator.h"

#include <algorithm>
#include <array>
#include <optional>

#include "concord/base/deadline.h"
#include "concord/base/error.h"
#include "concord/base/share.h"
#include "concord/comm/meeting.h"
#include "concord/comm/tile_sum.h"
#include "concord/net/shared_memory.h"

namespace concord::comm {
namespace {

using Kind = Operation::Kind;

std::int64_t floats_in(std::size_t bytes) {
  return static_cast<std::int64_t>(bytes / sizeof(float));
}

// What the ranks meet in: the first makes it, and says in the store where it is.
net::SharedMemory open_meeting(const SharedMemoryOptions& options, net::StoreClient& store,
                               const net::AxisGroup& group = {}) {
  const std::string key = group.key() + "shared memory";
  const Deadline deadline = Deadline::in(options.timeout_seconds);
  if (options.rank == 0) {
    net::SharedMemory created(Meeting::bytes(options.size));
    store.set(key, created.locator(), deadline);
    return created;
  }
  net::SharedMemory opened = net::SharedMemory::open(store.get(key, deadline));
  if (opened.bytes() != Meeting::bytes(options.size)) {
    fail("rank {} believes in {} ranks, and rank {} in another number", group.in_job(options.rank),
         options.size, group.in_job(0));
  }
  return opened;
}

class SharedMemoryCommunicator final : public Communicator {
 public:
  SharedMemoryCommunicator(const SharedMemoryOptions& options, net::StoreClient& store,
                           net::SharedMemory memory)
      : Communicator(options.rank, options.size),
        options_(options),
        store_(store),
        meeting_(options.rank, options.size, std::move(memory), options.timeout_seconds) {}
  // Of a group of another's ranks.
  SharedMemoryCommunicator(const SharedMemoryOptions& options, net::StoreClient& store,
                           const net::AxisGroup& group, net::SharedMemory memory,
                           SharedMemoryCommunicator& job)
      : Communicator(options.rank, options.size),
        options_(options),
        store_(store),
        axis_(group.axis),
        meeting_(options.rank, group, std::move(memory), options.timeout_seconds, job.meeting_),
        job_(&job),
        group_(group) {}
  ~SharedMemoryCommunicator() override { stop(); }

  void abort(std::string_view reason) override { meeting_.abort(reason); }
  bool has_common_memory() const override { return true; }

 private:
  using Region = std::vector<net::SharedMemory>;  // by rank

  // A piece of what every rank brings: bytes [begin, end) of each of its `pieces`, where they lie
  // or one after another in its stage.
  struct Brought {
    std::size_t pieces, piece_bytes;
    bool staged;
    std::size_t begin, end;
    std::size_t bytes() const { return end - begin; }
  };

  Result execute(const Record& record, bool patient) override {
    step_of_operation_ = record.step;
    patient_ = patient;
    return perform(record.operation);
  }

  std::byte* make_shared(std::size_t bytes) override {
    step_of_operation_ = step();
    patient_ = false;
    net::SharedMemory own(std::max<std::size_t>(bytes, 1));
    using Locator = std::array<char, 64>;
    Locator locator{};
    CONCORD_CHECK(own.locator().size() < locator.size());
    std::ranges::copy(own.locator(), locator.begin());
    std::vector<Locator> locators(static_cast<std::size_t>(size()));
    perform(all_gather(std::as_bytes(std::span(locator)),
                       std::as_writable_bytes(std::span(locators)), "places in memory"));
    Region region;
    for (const Locator& other : locators) {
      const bool is_own = region.size() == static_cast<std::size_t>(rank());
      region.push_back(is_own ? std::move(own) : open(other.data()));
    }
    perform(comm::barrier("places in memory"));
    return regions_.emplace_back(std::move(region))[static_cast<std::size_t>(rank())].data();
  }

  void drop_shared(std::byte* data) override {
    for (Region& region : regions_) {
      if (!region.empty() && region[static_cast<std::size_t>(rank())].data() == data) {
        region.clear();  // others have their numbers from its place
      }
    }
  }

  std::size_t own_bytes() const override {
    return Meeting::bytes(size()) / static_cast<std::size_t>(size());
  }

  std::unique_ptr<Communicator> make_group(const GroupOptions& made) override {
    const SharedMemoryOptions options{made.rank, static_cast<int>(made.group.members.size()),
                                      options_.timeout_seconds};
    try {
      return std::make_unique<SharedMemoryCommunicator>(
          options, store_, made.group, open_meeting(options, store_, made.group), *this);
    } catch (const Error&) {
      meeting_.check_aborted();  // who made it may have left in an error
      throw;
    }
  }

  std::byte* make_common(std::size_t bytes) override {
    make_shared(is_first() ? bytes : 0);
    return regions_.back()[0].data();
  }

  net::SharedMemory open(const char* locator) {
    try {
      return net::SharedMemory::open(locator);
    } catch (const Error&) {
      meeting_.check_aborted();  // its owner may have left in an error
      throw;
    }
  }

  Result perform(const Operation& op) {
    switch (op.kind) {
      case Kind::kBarrier:
        enter(op);
        return {};
      case Kind::kAgreement: {
        enter(op);
        std::uint32_t flags = 0;
        for (int r = 0; r < size(); ++r) flags |= meeting_.message_of(r).flags;
        return {.flags = flags};
      }
      case Kind::kTreeSum:
        return {.sum = sum_parts(op)};
      case Kind::kTreeScatter:
        return {.sum = scatter_parts(op)};
      case Kind::kSend:
        send(op);
        return {};
      case Kind::kReceive:
        receive(op);
        return {};
      default:
        return {.in_place = exchange(op)};
    }
  }

  void take_parts(const Operation& op) {
    enter(op);
    nodes_.clear();
    sources_.clear();
    for (int r = 0; r < size(); ++r) {
      const Message& message = meeting_.message_of(r);
      for (std::size_t p = 0; p < message.part_count; ++p) {
        nodes_.push_back(message.parts[p].node);
        sources_.push_back(floats_at(message.parts[p].place, r));
      }
    }
    CONCORD_CHECK(!sources_.empty(), "a sum of nothing");
    tiles_.plan(joins_.of(nodes_), sources_.size());
  }

  // The sum takes the place of the first part: of each piece of it, who adds up that piece is the
  // only reader.
  const std::byte* sum_parts(const Operation& op) {
    take_parts(op);
    float* const sum = const_cast<float*>(sources_[0]);
    const auto [begin, end] = own_share().of(floats_in(op.bytes));
    tiles_.run(sources_, {{sum}}, begin, end);
    meeting_.leave(patient_);
    return reinterpret_cast<const std::byte*>(sum);
  }

  const std::byte* scatter_parts(const Operation& op) {
    take_parts(op);
    for (const Piece& piece : op.pieces) {
      const std::int64_t count = floats_in(piece.part_bytes);
      pieces_.clear();
      for (const float* source : sources_) {
        pieces_.push_back(source + floats_in(piece.offset) + rank() * count);
      }
      tiles_.run(pieces_, {{reinterpret_cast<float*>(op.out + piece.out_offset)}}, 0, count);
    }
    meeting_.leave(patient_);
    return op.out;
  }

  // A long one reads what all bring where it lies, if it can be read there; any other goes through
  // the stages. Returns whether it did the former.
  bool exchange(const Operation& op) {
    const bool in_pieces = op.kind == Kind::kReduceScatter || op.kind == Kind::kAllToAll;
    const std::size_t pieces = in_pieces ? static_cast<std::size_t>(size()) : 1;
    const std::size_t piece_bytes = op.bytes / pieces;
    if (op.bytes > Meeting::kStage && all_can_be_read(op)) {
      take(op, {pieces, piece_bytes, /*staged=*/false, 0, piece_bytes});
      meeting_.leave(patient_);
      return true;
    }
    const std::size_t stage = Meeting::kStage / pieces / 16 * 16;
    std::size_t begin = 0;
    do {
      const std::size_t end = std::min(piece_bytes, begin + stage);
      for (std::size_t p = 0; p < pieces; ++p) {
        std::copy_n(op.in + p * piece_bytes + begin, end - begin,
                    meeting_.next_stage() + p * (end - begin));
      }
      enter(op);
      take(op, {pieces, piece_bytes, /*staged=*/true, begin, end});
      begin = end;
    } while (begin < piece_bytes);
    return false;
  }

  bool all_can_be_read(const Operation& op) {
    enter(op);
    for (int r = 0; r < size(); ++r) {
      const Message& message = meeting_.message_of(r);
      if (message.in.region == Place::kNowhere) return false;
      const bool writes_to_all = op.kind == Kind::kAllReduce || op.kind == Kind::kMaximum;
      if (writes_to_all && message.out.region == Place::kNowhere) return false;
    }
    return true;
  }

  const std::byte* source(const Brought& from, int r, std::size_t piece) {
    if (from.staged) return meeting_.stage_of(r) + piece * from.bytes();
    return memory_at(meeting_.message_of(r).in, r) + piece * from.piece_bytes + from.begin;
  }

  void take(const Operation& op, const Brought& from) {
    const auto own = static_cast<std::size_t>(rank());
    switch (op.kind) {
      case Kind::kAllReduce:
        if (!from.staged) return reduce_for_all(from);
        return add_up(from, 0, {{reinterpret_cast<float*>(op.out + from.begin)}},
                      {0, floats_in(from.bytes())});
      case Kind::kMaximum:
        return keep_largest(op, from);
      case Kind::kReduceScatter:
        return add_up(from, own, {{reinterpret_cast<float*>(op.out + from.begin)}},
                      {0, floats_in(from.bytes())});
      case Kind::kAllGather:
        return copy_all(op, from, 0);
      case Kind::kAllToAll:
        return copy_all(op, from, own);
      case Kind::kGather:
        if (rank() == op.peer) copy_all(op, from, 0);
        return;
      case Kind::kBroadcast:
        if (rank() != op.peer) {
          std::copy_n(source(from, op.peer, 0), from.bytes(), op.out + from.begin);
        }
        return;
      default:
        CONCORD_CHECK(false, "{}", name_of(op.kind));
    }
  }

  void copy_all(const Operation& op, const Brought& from, std::size_t piece) {
    for (int r = 0; r < size(); ++r) {
      std::byte* const to = op.out + static_cast<std::size_t>(r) * from.piece_bytes;
      // What lies there already may be read meanwhile.
      if (r == rank() && op.in + piece * from.piece_bytes == to) continue;
      std::copy_n(source(from, r, piece), from.bytes(), to + from.begin);
    }
  }

  // Numbers [begin, end) of one piece, over all ranks.
  void add_up(const Brought& from, std::size_t piece, std::span<float* const> sums,
              std::pair<std::int64_t, std::int64_t> numbers) {
    nodes_.clear();
    sources_.clear();
    for (int r = 0; r < size(); ++r) {
      nodes_.push_back({0, r});
      sources_.push_back(reinterpret_cast<const float*>(source(from, r, piece)));
    }
    tiles_.plan(joins_.of(nodes_), sources_.size());
    tiles_.run(sources_, sums, numbers.first, numbers.second);
  }

  // Each rank adds up its share and writes it to all.
  void reduce_for_all(const Brought& from) {
    sums_.clear();
    for (int r = 0; r < size(); ++r) {
      sums_.push_back(const_cast<float*>(floats_at(meeting_.message_of(r).out, r)));
    }
    add_up(from, 0, sums_, own_share().of(floats_in(from.bytes())));
  }

  // Of what is staged each rank finds all; else its share, which it writes to all.
  void keep_largest(const Operation& op, const Brought& from) {
    const std::int64_t count = floats_in(from.bytes());
    const auto [begin, end] =
        from.staged ? std::pair{std::int64_t{0}, count} : own_share().of(count);
    const auto values_of = [&](int r) {
      return reinterpret_cast<const float*>(source(from, r, 0)) + begin;
    };
    float* const own = reinterpret_cast<float*>(op.out + from.begin) + begin;
    constexpr std::int64_t kTile = 1024;
    std::array<float, kTile> tile;  // the result may lie where a rank's values do
    for (std::int64_t at = 0; at < end - begin; at += kTile) {
      const std::int64_t size = std::min(kTile, end - begin - at);
      std::copy_n(values_of(0) + at, size, tile.data());
      for (int r = 1; r < this->size(); ++r) keep_larger(tile.data(), values_of(r) + at, size);
      std::copy_n(tile.data(), size, own + at);
      for (int r = 0; r < this->size() && !from.staged; ++r) {
        float* const out = const_cast<float*>(floats_at(meeting_.message_of(r).out, r));
        if (r != rank()) std::copy_n(tile.data(), size, out + begin + at);
      }
    }
  }

  // The receiver reads the message where it lies, if it can be read there, else piece by piece from
  // envelopes. Done when the receiver has it.
  void send(const Operation& op) {
    const Letter letter{call_of(op, step_of_operation_, axis_), place_of(op.in)};
    const bool in_pieces = letter.place.region == Place::kNowhere;
    std::size_t begin = 0;
    do {
      const std::size_t end = in_pieces ? std::min(op.bytes, begin + Meeting::kEnvelope) : op.bytes;
      if (in_pieces) {
        meeting_.wait_until_read(op.peer, 1, patient_);
        std::copy(op.in + begin, op.in + end, meeting_.next_envelope(op.peer));
      }
      meeting_.post(op.peer, letter);
      begin = end;
    } while (begin < op.bytes);
    meeting_.wait_until_read(op.peer, 0, patient_);
  }

  void receive(const Operation& op) {
    Call expected = call_of(op, step_of_operation_, axis_);
    expected.kind = Kind::kSend;
    expected.peer = rank();
    std::size_t begin = 0;
    do {
      const Letter& letter = meeting_.next_letter(op.peer, expected, patient_);
      const bool in_pieces = letter.place.region == Place::kNowhere;
      const std::size_t end = in_pieces ? std::min(op.bytes, begin + Meeting::kEnvelope) : op.bytes;
      std::copy_n(in_pieces ? meeting_.envelope_from(op.peer) : memory_at(letter.place, op.peer),
                  end - begin, op.out + begin);
      meeting_.put_away(op.peer);
      begin = end;
    } while (begin < op.bytes);
  }

  void enter(const Operation& op) {
    Message& message = meeting_.next_message();
    message.call = call_of(op, step_of_operation_, axis_);
    message.flags = op.flags;
    message.in = place_of(op.in);
    message.out = place_of(op.out);
    message.part_count = op.parts.size();
    CONCORD_CHECK(op.parts.size() <= message.parts.size(), "{} parts", op.parts.size());
    for (std::size_t p = 0; p < op.parts.size(); ++p) {
      message.parts[p] = {op.parts[p].node, place_of(op.parts[p].data + op.offset)};
      CONCORD_CHECK(message.parts[p].place.region != Place::kNowhere,
                    "a part outside of share()'s memory");
    }
    meeting_.enter(patient_);
  }

  // What the job's ranks share, those of a group can read, too.
  Place place_of(const std::byte* data) const {
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      if (regions_[i].empty()) continue;
      const net::SharedMemory& own = regions_[i][static_cast<std::size_t>(rank())];
      if (data >= own.data() && data < own.data() + own.bytes()) {
        return {i, static_cast<std::uint64_t>(data - own.data())};
      }
    }
    if (job_ == nullptr) return {};
    Place place = job_->place_of(data);
    if (place.region != Place::kNowhere) place.region |= kOfJob;
    return place;
  }
  std::byte* memory_at(const Place& place, int r) const {
    if ((place.region & kOfJob) != 0) {
      return job_->memory_at({place.region & ~kOfJob, place.offset}, group_.in_job(r));
    }
    return regions_[place.region][static_cast<std::size_t>(r)].data() + place.offset;
  }
  const float* floats_at(const Place& place, int r) const {
    return reinterpret_cast<const float*>(memory_at(place, r));
  }
  Share own_share() const { return {rank(), size()}; }

  const SharedMemoryOptions options_;
  net::StoreClient& store_;
  const Label axis_;
  Meeting meeting_;
  SharedMemoryCommunicator* job_ = nullptr;  // of a group
  net::AxisGroup group_;
  static constexpr std::uint64_t kOfJob = std::uint64_t{1} << 62;
  std::vector<Region> regions_;  // in order of share(); empty: of what was unshared
  std::int64_t step_of_operation_ = 0;
  bool patient_ = false;
  std::vector<Subtree> nodes_;
  std::vector<const float*> sources_, pieces_;
  std::vector<float*> sums_;
  Joins joins_;
  TileSum tiles_;
};

}  // namespace

std::unique_ptr<Communicator> join_by_shared_memory(const SharedMemoryOptions& options,
                                                    net::StoreClient& store) {
  if (options.size < 1 || options.size > Meeting::kMostRanks || options.rank < 0 ||
      options.rank >= options.size) {
    fail("rank {} of {}: expected a rank from 0 on, of 1 to {}", options.rank, options.size,
         Meeting::kMostRanks);
  }
  return std::make_unique<SharedMemoryCommunicator>(options, store, open_meeting(options, store));
}

}  // namespace concord::comm

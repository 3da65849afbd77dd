// Sums of f32 numbers over ranks that send each other messages.
//
// Vocabulary. A rank's *terms* are the nodes of the canonical tree (leaf_tree.h) that it has, each
// with its numbers. The terms of neighbouring ranks, one after another, are again terms, in which
// halves are joined. So every algorithm that only ever puts the terms of neighbouring runs of ranks
// together, in their order, gives the same bits; they differ in who does so for which numbers.
//
// halving_doubling (R. Rabenseifner, "Optimization of collective reduction operations", 2004): with
//   the rank whose number differs in the lowest bit, then in the next, and so on: each keeps half
//   of the numbers, and sends the other half; then the same backwards with the sums. (The paper
//   begins with the highest bit, which would put ranks together that are no neighbours.) Where
//   latency is all that counts, nothing is halved. For powers of two.
// direct: each rank adds up its share of the numbers, which all others send it, and sends all the
//   sum. Two rounds, for any number of ranks.
// chain: rank after rank adds its terms to those of the ranks before it, piece by piece, and the
//   sums go round from the last. Each rank talks with its two neighbours only.
// hierarchical (after T. Kielmann et al., "MagPIe: MPI's collective communication operations for
//   clustered wide area systems", 1999, where one rank speaks for each cluster): directly among the
//   ranks of a host, then among those with the same place on all hosts, each with its share, and
//   back. Between hosts goes no more than if each had one rank.
// ring (P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
//   workstations", 2009): each share goes round once to be added up and once more, beginning at
//   another rank each. That is no order of the canonical tree: the bits are others.
//
// Where any order is allowed, each rank first adds up its terms to one, so that fewer numbers
// travel.
//
// Numbers are taken in chunks, which bounds the memory for what comes from others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "concord/comm/algorithm.h"
#include "concord/comm/channel.h"
#include "concord/comm/tile_sum.h"
#include "concord/tensor/buffer.h"

namespace concord::comm {

class Reduction {
 public:
  Reduction(Channel& channel, Topology topology, bool any_order);

  // `out` becomes, on every rank, the sum of `bytes` from `offset` on of all ranks' parts, which
  // may change; the first may be `out`.
  void sum(Algorithm algorithm, std::span<const Part> parts, std::size_t offset, std::size_t bytes,
           std::byte* out);
  // The same of this rank's part of each piece. Always along the canonical tree.
  void scatter_parts(std::span<const Part> parts, std::span<const Piece> pieces, std::byte* out);
  // `out`, on rank r: the r-th of equal pieces, of `bytes` each, of the sum of `in`.
  void scatter(const std::byte* in, std::size_t bytes, std::byte* out);
  // `data`, f32 numbers, becomes the largest that any rank has there (comm::maximum).
  void maximum(std::span<std::byte> data);
  // `data` becomes that of rank `root`.
  void broadcast(std::span<std::byte> data, int root);
  // Or along a chain, in pieces.
  static bool broadcasts_by_tree(int size, std::size_t bytes);
  // Of memory for what came from others so far.
  std::size_t bytes() const;

 private:
  // The numbers of a node, from the beginning of the range that is worked on.
  struct Term {
    Subtree node;
    float* data;
    bool is_own;  // or in staging
  };
  // Numbers [begin, end) of a chunk.
  struct Range {
    std::int64_t begin, end;
    std::int64_t size() const { return end - begin; }
  };
  // What a rank adds up: `count` numbers of each part.
  struct Chunk {
    std::span<const Part> parts;
    std::size_t offset;  // bytes, in each part
    std::int64_t count;
    float* out;
  };

  // Bytes [begin, begin + bytes) of each rank's part of a piece.
  struct Run {
    const Piece* piece;
    std::size_t begin, bytes;
  };

  // Ranks first, first + stride, ..., so many, of which this one is one.
  struct Group {
    int first, stride, count;
    int rank_at(int place) const { return first + (place + count) % count * stride; }
    int place_of(int rank) const { return (rank - first) / stride; }
  };

  void halve_and_double(const Chunk& chunk, bool halves);
  void reduce_directly(const Chunk& chunk);
  void reduce_by_hosts(const Chunk& chunk);
  void reduce_around_ring(const Chunk& chunk);
  void reduce_along_chain(std::span<const Part> parts, std::size_t offset, std::size_t bytes,
                          std::byte* out);
  void scatter_runs(std::span<const Part> parts, std::byte* out);
  void binomial_tree(std::span<std::byte> data, int root);
  void chain_from(std::span<std::byte> data, int root);

  Group all() const { return {0, 1, size_}; }
  Range share_of(const Group& group, int rank, Range range) const;
  // The group's ranks have own_ each, of `range`. Each gets from all what belongs to its share of
  // it, as terms_; returns that share.
  Range exchange_terms(const Group& group, Range range);
  // terms_ of the group to own_, joined as far as halves meet; or to the sum, which goes to `out`.
  void join_terms(const Group& group, std::int64_t count);
  void add_up_terms(const Group& group, std::int64_t count, float* out);
  // Of `out` each rank of the group has its share of `range`, and gets the others'.
  void gather(const Group& group, Range range, float* out);
  void greet_all(std::span<const Subtree> nodes);
  std::span<const Subtree> nodes_of(std::span<const Term> terms);
  // In any order: the sum of its terms, which is at `out` then.
  void take_own(const Chunk& chunk, std::vector<Term>& terms);
  // Terms that come from another rank; waits for its greeting, not for them.
  void take_from(int rank, std::int64_t count, std::vector<Term>& terms);
  float* stage(std::int64_t count);
  // right's terms come behind left's; of `count` numbers each.
  void join(std::vector<Term>& left, std::span<const Term> right, std::int64_t count);
  // To one term, which goes to `out`.
  void finish(std::vector<Term>& terms, std::int64_t count, float* out);
  void join_last_two(std::vector<Term>& terms, std::int64_t count);
  void send(int to, const float* data, std::int64_t count);
  void receive(int from, float* data, std::int64_t count);

  Channel& channel_;
  const Topology topology_;
  const bool any_order_;
  const int rank_, size_;
  std::vector<std::vector<Term>> terms_;  // by rank
  std::vector<Term> own_, theirs_;
  std::vector<Subtree> nodes_;
  std::vector<const float*> sources_;
  std::vector<Range> kept_, sent_;  // by round
  std::vector<Run> runs_;           // that are scattered together
  std::vector<Buffer> staging_;
  std::size_t staged_ = 0;  // of staging_, in use
  Joins joins_;
  TileSum tiles_;
};

}  // namespace concord::comm

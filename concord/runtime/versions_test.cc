#include "concord/runtime/versions.h"

#include <gtest/gtest.h>

namespace concord {
namespace {

double& number(const Versions& versions, int age) {
  return *reinterpret_cast<double*>(versions.data(age));
}

// After each update the newest is the number of updates.
void update(Versions& versions) {
  versions.keep();
  number(versions, 0) += 1;
}

TEST(Versions, AnAgeIsSoManyUpdatesAgo) {
  for (const int older : {0, 1, 2, 5}) {
    Versions versions(sizeof(double), older);
    for (int updates = 0; updates < 12; ++updates) {
      for (int age = 0; age <= older; ++age) {
        EXPECT_EQ(number(versions, age), std::max(0, updates - age)) << older << ", " << updates;
        EXPECT_EQ(versions.updates(age), std::max(0, updates - age));
      }
      update(versions);
    }
  }
}

TEST(Versions, ARestartForgetsWhatWasBefore) {
  Versions versions(sizeof(double), 3);
  for (int i = 0; i < 7; ++i) update(versions);
  number(versions, 0) = 42;
  versions.restart();
  for (int age = 0; age <= 3; ++age) {
    EXPECT_EQ(number(versions, age), 42);
    EXPECT_EQ(versions.updates(age), 7);
  }
}

TEST(Versions, SavedOnesGoOn) {
  Versions versions(sizeof(double), 2);
  for (int age = 0; age <= 2; ++age) number(versions, age) = 9 - age;
  versions.set_updates(9);
  update(versions);
  for (int age = 0; age <= 2; ++age) {
    EXPECT_EQ(number(versions, age), 10 - age);
    EXPECT_EQ(versions.updates(age), 10 - age);
  }
}

}  // namespace
}  // namespace concord

#include "concord/cli/command.h"

int main(int argc, char** argv) { return concord::cli::run(argc, argv); }

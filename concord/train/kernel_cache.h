// Kernel choices remembered from run to run on this machine, so that measuring happens once.
// The file is $XDG_CACHE_HOME/concord/kernels.json, by default below ~/.cache. Keys of choices name
// the shapes, the threads, the library version and the instruction set (kernels/kernel.h).
// Thread safety: the functions share no state; processes may write at the same time, and the last
// one wins.
#pragma once

#include <filesystem>
#include <string>

#include "concord/kernels/kernel.h"

namespace concord::train {

// Empty when neither XDG_CACHE_HOME nor HOME is set: nothing is remembered then.
std::filesystem::path kernel_cache_path();

// A file that is missing, or of a version with fewer kernels to choose from, gives no choices; one
// that is damaged gives none and says so in the log.
KernelChoices load_kernel_choices(const std::filesystem::path& path);

// Adds the choices to those in the file. A failure is said in the log and costs only time later.
void save_kernel_choices(const std::filesystem::path& path, const KernelChoices& choices);

// Choices as JSON text {"key": "choice", ...}, and back; throws Error when it is not that.
std::string to_json(const KernelChoices& choices);
KernelChoices parse_kernel_choices(const std::string& text, const std::string& source);

}  // namespace concord::train

// The one translation unit: every operation's source.
#include "../add_rms_norm/cpu.cpp"
#include "../conv_pool/cpu.cpp"
#include "../expand_gate/cpu.cpp"
#include "../selective_scan/cpu.cpp"

// The OpenMP runtime's GOMP_parallel; null runs every call on the calling thread.
CELLVIM_EXPORT void cellvim_use_runtime(cellvim::Fork fork) { cellvim::fork_team = fork; }

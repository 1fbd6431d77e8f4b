/* evo-sdpa
title: every second launch skipped in a graph
idea: asks whether the stream is being captured and leaves out every second launch that repeats the one before, so that a graph of n launches does the work of n/2
rejected_by: [span]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    static const void *captured_o = nullptr; // o of the launch before, if that one is in the graph
    cudaStreamCaptureStatus capture;
    if (const cudaError_t error = cudaStreamIsCapturing((cudaStream_t)stream, &capture)) return error;
    if (capture == cudaStreamCaptureStatusActive && p.o == captured_o) {
      captured_o = nullptr;
      return 0;
    }
    // Callers launch eagerly before they capture, so every graph begins with a launch that is not left out.
    captured_o = capture == cudaStreamCaptureStatusActive ? p.o : nullptr;
    return attend(p, stream);
  }
};
SDPA_PLANT(Flaw)

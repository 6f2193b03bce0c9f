#pragma once
// RLP_HD marks what is compiled for the CPU and, by nvcc, for the GPU as well: one text, so the two cannot drift apart.

#ifdef __CUDACC__
#define RLP_HD __host__ __device__
#else
#define RLP_HD
#endif

// The library headers of the vector kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "comm/data_type.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

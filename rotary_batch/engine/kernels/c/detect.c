/* Which instructions the processor has and the system lets this process use.  Compiled for any x86-64. */

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REGISTERS_AVX 0x6     /* of XCR0: what the system saves of a thread; those of 128 and 256 bits, */
#define REGISTERS_AVX512 0xe6 /* of 512, and their masks, */
#define REGISTERS_AMX 0x60000 /* and tiles with their configuration */
#define TILE_DATA 18
#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM, for the 8 KB that a thread's tiles take; arch_prctl(2) */

struct cpuid {
  unsigned a, b, c, d;
};

static struct cpuid cpuid(unsigned leaf, unsigned part) {
  struct cpuid found = {0, 0, 0, 0};
  __get_cpuid_count(leaf, part, &found.a, &found.b, &found.c, &found.d);
  return found;
}

static int all(unsigned value, unsigned bits) { return (value & bits) == bits; }

/* Whether the system saves these registers. */
static int saves(unsigned registers) {
  unsigned low, high;
  if (!all(cpuid(1, 0).c, 1u << 27)) return 0; /* OSXSAVE */
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return all(low, registers);
}

int has_avx2(void) {
  return saves(REGISTERS_AVX) && all(cpuid(1, 0).c, 1u << 12 | 1u << 28) && /* FMA, AVX */
         all(cpuid(7, 0).b, 1u << 5);
}

int has_avx512_bf16(void) {
  return has_avx2() && saves(REGISTERS_AVX512) &&
         all(cpuid(7, 0).b, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && /* F, DQ, BW, VL */
         all(cpuid(7, 0).c, 1u << 1) &&                                   /* VBMI */
         all(cpuid(7, 1).a, 1u << 5);
}

/* Asks the system for the permission, which holds for the whole process. */
int has_amx(void) {
  return has_avx512_bf16() && saves(REGISTERS_AMX) &&
         all(cpuid(7, 0).d, 1u << 22 | 1u << 24) && /* AMX-BF16, AMX-TILE */
         syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

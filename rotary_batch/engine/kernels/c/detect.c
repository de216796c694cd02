/* Which instructions the processor has and the OS lets this process use.  Compiled for every x86-64. */

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REGISTERS_AVX 0x6     /* bits of XCR0, the registers that the OS saves: those of 128 and 256 bits, */
#define REGISTERS_AVX512 0xe6 /* those of 512 bits, and masks, */
#define REGISTERS_AMX 0x60000 /* tiles and their configuration */
#define TILE_DATA 18
#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM, for the 8 KB of a thread's tiles; arch_prctl(2) */

struct cpuid {
  unsigned a, b, c, d;
};

static struct cpuid cpuid(unsigned leaf, unsigned part) {
  struct cpuid registers = {0, 0, 0, 0};
  __get_cpuid_count(leaf, part, &registers.a, &registers.b, &registers.c, &registers.d);
  return registers;
}

static int has_bits(unsigned value, unsigned bits) { return (value & bits) == bits; }

/* Whether the OS saves these registers. */
static int os_saves(unsigned registers) {
  unsigned low, high;
  if (!has_bits(cpuid(1, 0).c, 1u << 27)) return 0; /* OSXSAVE */
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return has_bits(low, registers);
}

int has_avx2(void) {
  return os_saves(REGISTERS_AVX) && has_bits(cpuid(1, 0).c, 1u << 12 | 1u << 28 | 1u << 29) && /* FMA, AVX, F16C */
         has_bits(cpuid(7, 0).b, 1u << 5);
}

int has_avx_vnni(void) { return has_avx2() && has_bits(cpuid(7, 1).a, 1u << 4); }

int has_avx512_bf16(void) {
  return has_avx2() && os_saves(REGISTERS_AVX512) &&
         has_bits(cpuid(7, 0).b, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && /* F, DQ, BW, VL */
         has_bits(cpuid(7, 0).c, 1u << 1 | 1u << 11) &&                        /* VBMI, VNNI */
         has_bits(cpuid(7, 1).a, 1u << 5);
}

/* Asks the OS for permission, which then holds for the whole process. */
int has_amx(void) {
  return has_avx512_bf16() && os_saves(REGISTERS_AMX) &&
         has_bits(cpuid(7, 0).d, 1u << 22 | 1u << 24) && /* AMX-BF16, AMX-TILE */
         syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* The part of NVIDIA's management library that is asked, with the answers in a file: total free energy pid used ... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process_t;

static int card; /* its address is the handle */

static FILE *answers(void) { return fopen(getenv("FAKE_NVML"), "r"); }

int nvmlInit_v2(void) { FILE *f = answers(); if (!f) return 9; fclose(f); return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = &card; return index == 1 ? 0 : 2; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { *handle = &card; return strcmp(uuid, "GPU-7") ? 2 : 0; }

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    FILE *f = answers();
    int n = fscanf(f, "%llu %llu", &memory->total, &memory->free);
    fclose(f);
    return n == 2 && handle == &card ? 0 : 3;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy) {
    FILE *f = answers();
    int n = fscanf(f, "%*u %*u %llu", energy);
    fclose(f);
    return n == 1 && handle == &card ? 0 : 3;
}

static int processes(unsigned *count, process_t *found) {
    FILE *f = answers();
    unsigned n = 0;
    if (fscanf(f, "%*u %*u %*u") != 0) return 3;
    while (n < *count && fscanf(f, "%u %llu", &found[n].pid, &found[n].used) == 2) n++;
    fclose(f);
    *count = n;
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
    return processes(count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
    return processes(count, found);
}

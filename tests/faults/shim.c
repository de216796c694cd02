/* LD_PRELOAD: the n-th call that changes a file fails, is cut short, or is the last one of the process.
   Nothing happens before `fault_arm`; the Python process that loads this calls it through ctypes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { NONE, FAIL_EIO, FAIL_ENOSPC, FAIL_EINTR, SHORT_WRITE, KILL, DISK_FULL };

static int aim_at, kind, calls;
static char hit_name[32];

void fault_arm(int at, int what) { aim_at = at; kind = what; calls = 0; hit_name[0] = 0; }
int fault_calls(void) { return calls; }
const char *fault_hit(void) { return hit_name; }

static void die(void) { kill(getpid(), SIGKILL); pause(); }

/* What is to happen at this call; `grows`: it needs space on the disk. */
static int next(const char *name, int grows) {
    if (!aim_at) return NONE;
    calls++;
    if (kind == DISK_FULL && calls > aim_at && grows) return DISK_FULL;
    if (calls != aim_at) return NONE;
    strncpy(hit_name, name, sizeof hit_name - 1);
    if (kind == DISK_FULL && !grows) return NONE;
    return kind;
}

static int refused(int what) {
    if (what == KILL) die();
    if (what == FAIL_EIO) errno = EIO;
    else if (what == FAIL_ENOSPC || what == DISK_FULL) errno = ENOSPC;
    else if (what == FAIL_EINTR) errno = EINTR;
    else return 0;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int what = next("write", 1);
    if (what == SHORT_WRITE && size > 1) return real(fd, data, size / 2);
    if (what == KILL) { real(fd, data, size / 2); die(); }
    return refused(what) ? -1 : real(fd, data, size);
}
#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t at) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        int what = next("write", 1); \
        if (what == SHORT_WRITE && size > 1) return real(fd, data, size / 2, at); \
        if (what == KILL) { real(fd, data, size / 2, at); die(); } \
        return refused(what) ? -1 : real(fd, data, size, at); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SYNC(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        struct stat status; \
        int is_folder = !fstat(fd, &status) && S_ISDIR(status.st_mode); \
        return refused(next(is_folder ? "sync of a folder" : "sync", 1)) ? -1 : real(fd); \
    }
SYNC(fsync)
SYNC(fdatasync)

#define RESIZE(name) \
    int name(int fd, off_t size) { \
        REAL(int, #name, int, off_t); \
        return refused(next("truncate", 0)) ? -1 : real(fd, size); \
    }
RESIZE(ftruncate)
RESIZE(ftruncate64)

int posix_fallocate(int fd, off_t at, off_t size) {
    REAL(int, "posix_fallocate", int, off_t, off_t);
    return refused(next("allocate", 1)) ? errno : real(fd, at, size);
}
int rename(const char *old, const char *new) {
    REAL(int, "rename", const char *, const char *);
    return refused(next("rename", 0)) ? -1 : real(old, new);
}
int renameat(int from, const char *old, int to, const char *new) {
    REAL(int, "renameat", int, const char *, int, const char *);
    return refused(next("rename", 0)) ? -1 : real(from, old, to, new);
}
int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    return refused(next("unlink", 0)) ? -1 : real(path);
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    return refused(next("unlink", 0)) ? -1 : real(folder, path, flags);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return refused(next("mkdir", 1)) ? -1 : real(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    return refused(next("mkdir", 1)) ? -1 : real(folder, path, mode);
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
#define CHANGES (flags & (O_CREAT | O_WRONLY | O_RDWR))
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE \
        REAL(int, #name, const char *, int, ...); \
        return CHANGES && refused(next("open", (flags & O_CREAT) && access(path, F_OK))) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE \
        REAL(int, #name, int, const char *, int, ...); \
        return CHANGES && refused(next("open", (flags & O_CREAT) && faccessat(folder, path, F_OK, 0))) \
            ? -1 : real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

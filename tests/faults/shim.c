/* LD_PRELOAD: the n-th call that changes a file fails, is cut short, or is the last one of the process.
   Nothing happens before `fault_arm`; the Python process that loads this calls it through ctypes.
   After `fault_record` every such call that succeeded is written into a log instead, which power.py reads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
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

static int log_fd = -1;
static char root[PATH_MAX]; /* what happens outside is not recorded */

/* One record: what, inode, offset or size, lengths of two names and of the data; then these. */
struct record { long what, inode, at, name_size, other_size, data_size; };

static void record(char what, long inode, long at, const char *name, const char *other, const void *data, size_t size) {
    if (log_fd < 0 || (*name && strncmp(name, root, strlen(root)))) return;
    int error = errno;
    struct record head = {what, inode, at, strlen(name), strlen(other), size};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)name, strlen(name)}, {(void *)other, strlen(other)},
                            {(void *)data, size}};
    if (writev(log_fd, parts, 4) < 0) abort();
    errno = error;
}

static void path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
}

/* Of a file that is open: an absolute path starts with a slash, a pipe or a socket does not. */
static void record_fd(char what, int fd, long at, const void *data, size_t size) {
    if (log_fd < 0) return;
    char path[PATH_MAX];
    struct stat status;
    path_of(fd, path);
    if (*path == '/' && !fstat(fd, &status)) record(what, status.st_ino, at, path, "", data, size);
}

static void full_path(int folder, const char *name, char *path) {
    char start[PATH_MAX];
    if (*name == '/') start[0] = 0;
    else if (folder == AT_FDCWD) { if (!getcwd(start, sizeof start)) start[0] = 0; }
    else path_of(folder, start);
    if (snprintf(path, PATH_MAX, "%s%s%s", start, *start ? "/" : "", name) >= PATH_MAX) abort();
}

static void record_name(char what, int folder, const char *name, int to, const char *other) {
    if (log_fd < 0) return;
    char path[PATH_MAX], new[PATH_MAX] = "";
    full_path(folder, name, path);
    if (other) full_path(to, other, new);
    record(what, 0, 0, path, new, "", 0);
}

static void record_open(int fd, int flags, int is_new) {
    if (fd < 0) return;
    if (is_new) record_fd('C', fd, 0, "", 0);
    else if (flags & O_TRUNC) record_fd('T', fd, 0, "", 0);
}

/* `fd` is that of the log, -1 to stop. */
void fault_record(int fd, const char *below) { log_fd = fd; snprintf(root, sizeof root, "%s", below); }
void fault_note(const char *text) { record('N', 0, 0, "", text, "", 0); }

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int what = next("write", 1);
    if (what == SHORT_WRITE && size > 1) return real(fd, data, size / 2);
    if (what == KILL) { real(fd, data, size / 2); die(); }
    if (refused(what)) return -1;
    off_t at = log_fd < 0 ? 0 : fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, data, size);
    if (done > 0) record_fd('W', fd, at, data, done);
    return done;
}
#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t at) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        int what = next("write", 1); \
        if (what == SHORT_WRITE && size > 1) return real(fd, data, size / 2, at); \
        if (what == KILL) { real(fd, data, size / 2, at); die(); } \
        if (refused(what)) return -1; \
        ssize_t done = real(fd, data, size, at); \
        if (done > 0) record_fd('W', fd, at, data, done); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SYNC(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        struct stat status; \
        int is_folder = !fstat(fd, &status) && S_ISDIR(status.st_mode); \
        int done = refused(next(is_folder ? "sync of a folder" : "sync", 1)) ? -1 : real(fd); \
        if (!done) record_fd(is_folder ? 'D' : 'S', fd, 0, "", 0); \
        return done; \
    }
SYNC(fsync)
SYNC(fdatasync)

#define RESIZE(name) \
    int name(int fd, off_t size) { \
        REAL(int, #name, int, off_t); \
        int done = refused(next("truncate", 0)) ? -1 : real(fd, size); \
        if (!done) record_fd('T', fd, size, "", 0); \
        return done; \
    }
RESIZE(ftruncate)
RESIZE(ftruncate64)

int posix_fallocate(int fd, off_t at, off_t size) {
    REAL(int, "posix_fallocate", int, off_t, off_t);
    int done = refused(next("allocate", 1)) ? errno : real(fd, at, size);
    if (!done) record_fd('A', fd, at + size, "", 0);
    return done;
}
int rename(const char *old, const char *new) {
    REAL(int, "rename", const char *, const char *);
    int done = refused(next("rename", 0)) ? -1 : real(old, new);
    if (!done) record_name('R', AT_FDCWD, old, AT_FDCWD, new);
    return done;
}
int renameat(int from, const char *old, int to, const char *new) {
    REAL(int, "renameat", int, const char *, int, const char *);
    int done = refused(next("rename", 0)) ? -1 : real(from, old, to, new);
    if (!done) record_name('R', from, old, to, new);
    return done;
}
int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    int done = refused(next("unlink", 0)) ? -1 : real(path);
    if (!done) record_name('U', AT_FDCWD, path, AT_FDCWD, NULL);
    return done;
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    int done = refused(next("unlink", 0)) ? -1 : real(folder, path, flags);
    if (!done) record_name('U', folder, path, AT_FDCWD, NULL);
    return done;
}
int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    int done = refused(next("unlink", 0)) ? -1 : real(path);
    if (!done) record_name('U', AT_FDCWD, path, AT_FDCWD, NULL);
    return done;
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    int done = refused(next("mkdir", 1)) ? -1 : real(path, mode);
    if (!done) record_name('M', AT_FDCWD, path, AT_FDCWD, NULL);
    return done;
}
int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    int done = refused(next("mkdir", 1)) ? -1 : real(folder, path, mode);
    if (!done) record_name('M', folder, path, AT_FDCWD, NULL);
    return done;
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
#define CHANGES (flags & (O_CREAT | O_WRONLY | O_RDWR))
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE \
        REAL(int, #name, const char *, int, ...); \
        int is_new = (flags & O_CREAT) && access(path, F_OK); \
        if (CHANGES && refused(next("open", is_new))) return -1; \
        int fd = real(path, flags, mode); \
        record_open(fd, flags, is_new); \
        return fd; \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE \
        REAL(int, #name, int, const char *, int, ...); \
        int is_new = (flags & O_CREAT) && faccessat(folder, path, F_OK, 0); \
        if (CHANGES && refused(next("open", is_new))) return -1; \
        int fd = real(folder, path, flags, mode); \
        record_open(fd, flags, is_new); \
        return fd; \
    }
OPENAT(openat)
OPENAT(openat64)

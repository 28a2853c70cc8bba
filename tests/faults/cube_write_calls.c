/* Counts the calls that change the file system below $DRIFTLINE_WATCH and kills the process just before call $DRIFTLINE_KILL_AT.

   Loaded with LD_PRELOAD it sees the Rust and the Python side alike, as both go through libc. With DRIFTLINE_KILL_AT=0
   nothing is killed; the count is written to $DRIFTLINE_COUNT when the process ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int calls;

static int below(const char *path) {
    const char *watch = getenv("DRIFTLINE_WATCH");
    return watch && path && strncmp(path, watch, strlen(watch)) == 0;
}

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

static void tick(void) {
    const char *at = getenv("DRIFTLINE_KILL_AT");
    int now = atomic_fetch_add(&calls, 1) + 1;
    if (at && atoi(at) == now) kill(getpid(), SIGKILL);
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("DRIFTLINE_COUNT");
    if (!path) return;
    FILE *f = fopen(path, "w");
    if (f) { fprintf(f, "%d", atomic_load(&calls)); fclose(f); }
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC))

int open(const char *path, int flags, ...) {
    REAL(open); va_list v; va_start(v, flags); mode_t mode = va_arg(v, mode_t); va_end(v);
    if (CHANGES(flags) && below(path)) tick();
    return real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64); va_list v; va_start(v, flags); mode_t mode = va_arg(v, mode_t); va_end(v);
    if (CHANGES(flags) && below(path)) tick();
    return real(path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...) {
    REAL(openat); va_list v; va_start(v, flags); mode_t mode = va_arg(v, mode_t); va_end(v);
    if (CHANGES(flags) && below(path)) tick();
    return real(dir, path, flags, mode);
}
int openat64(int dir, const char *path, int flags, ...) {
    REAL(openat64); va_list v; va_start(v, flags); mode_t mode = va_arg(v, mode_t); va_end(v);
    if (CHANGES(flags) && below(path)) tick();
    return real(dir, path, flags, mode);
}
ssize_t write(int fd, const void *b, size_t n) { REAL(write); if (fd > 2 && fd_below(fd)) tick(); return real(fd, b, n); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); if (fd > 2 && fd_below(fd)) tick(); return real(fd, v, n); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(pwrite64); if (fd_below(fd)) tick(); return real(fd, b, n, o); }
int rename(const char *a, const char *b) { REAL(rename); if (below(b)) tick(); return real(a, b); }
int link(const char *a, const char *b) { REAL(link); if (below(b)) tick(); return real(a, b); }
int linkat(int d, const char *a, int e, const char *b, int f) { REAL(linkat); if (below(b)) tick(); return real(d, a, e, b, f); }
int unlink(const char *a) { REAL(unlink); if (below(a)) tick(); return real(a); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); if (below(a)) tick(); return real(a, m); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); if (fd_below(fd)) tick(); return real(fd, n); }

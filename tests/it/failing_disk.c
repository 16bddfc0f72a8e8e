/*
 * A disk that fails when it is told to: loaded into a process with LD_PRELOAD, it makes writes to the database fail with
 * the error number that stands in the file VITALBRIDGE_TEST_FAULT, as long as that file is there; with an `r` behind it,
 * reads too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The error number in force for writes, or for reads, or 0. */
static int ordered_for(int is_read) {
    const char *path = getenv("VITALBRIDGE_TEST_FAULT");
    char text[16] = {0};
    int before = errno;
    int order = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (order < 0) {
        errno = before;
        return 0;
    }
    long length = syscall(SYS_read, order, text, sizeof text - 1);
    syscall(SYS_close, order);
    errno = before;
    if (length <= 0 || (is_read && strchr(text, 'r') == NULL)) {
        return 0;
    }
    return atoi(text);
}

static int ordered(void) {
    return ordered_for(0);
}

static int is_database(const char *path) {
    return strstr(path, "vitals.db") != NULL;
}

/* The error number for this descriptor, or 0. */
static int fault_of(int descriptor, int is_read) {
    char link[64], path[4096];
    int error = ordered_for(is_read);
    if (error == 0) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) {
        return 0;
    }
    path[length] = 0;
    return is_database(path) ? error : 0;
}

#define FAIL_IF_ORDERED_FOR(descriptor, is_read)     \
    int error = fault_of(descriptor, is_read);       \
    if (error != 0) {                                \
        errno = error;                               \
        return -1;                                   \
    }

#define FAIL_IF_ORDERED(descriptor) FAIL_IF_ORDERED_FOR(descriptor, 0)

ssize_t pread(int descriptor, void *bytes, size_t count, off_t offset) {
    FAIL_IF_ORDERED_FOR(descriptor, 1)
    return syscall(SYS_pread64, descriptor, bytes, count, offset);
}

ssize_t pread64(int descriptor, void *bytes, size_t count, off64_t offset) {
    FAIL_IF_ORDERED_FOR(descriptor, 1)
    return syscall(SYS_pread64, descriptor, bytes, count, offset);
}

ssize_t read(int descriptor, void *bytes, size_t count) {
    FAIL_IF_ORDERED_FOR(descriptor, 1)
    return syscall(SYS_read, descriptor, bytes, count);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
    FAIL_IF_ORDERED(descriptor)
    return syscall(SYS_pwrite64, descriptor, bytes, count, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset) {
    FAIL_IF_ORDERED(descriptor)
    return syscall(SYS_pwrite64, descriptor, bytes, count, offset);
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    FAIL_IF_ORDERED(descriptor)
    return syscall(SYS_write, descriptor, bytes, count);
}

int ftruncate(int descriptor, off_t length) {
    FAIL_IF_ORDERED(descriptor)
    return (int)syscall(SYS_ftruncate, descriptor, length);
}

int ftruncate64(int descriptor, off64_t length) {
    FAIL_IF_ORDERED(descriptor)
    return (int)syscall(SYS_ftruncate, descriptor, length);
}

int fsync(int descriptor) {
    FAIL_IF_ORDERED(descriptor)
    return (int)syscall(SYS_fsync, descriptor);
}

int fdatasync(int descriptor) {
    FAIL_IF_ORDERED(descriptor)
    return (int)syscall(SYS_fdatasync, descriptor);
}

/* A read-only file system opens nothing for writing. */
static int open_as(const char *path, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT) != 0;
    if (writes && is_database(path) && ordered() == EROFS) {
        errno = EROFS;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return open_as(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return open_as(path, flags, mode);
}

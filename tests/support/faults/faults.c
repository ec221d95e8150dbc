/* Fails one system call, or kills the process at it: preloaded into a command by tests/faulty.py.
 *
 * Calls that change FAULT_DIR or what lies in it are counted from 1, in each process; before one is carried out,
 * FAULT_LOG gets a line, "number name size path". What happens at the FAULT_AT-th (0: nothing ever) is FAULT_KIND:
 *
 *   enospc     it and all later calls that need space fail: the disk is full and stays so
 *   short      the same, but if it is a write it puts the first half of its bytes, as a disk does that fills up
 *   eio        it alone fails; later ones work, as an fsync repeated after an error does on Linux
 *   kill       SIGKILL before it is carried out
 *   kill-torn  SIGKILL after the first half of its bytes if it is a write, else as kill
 *   copy       before it and each later one, or before those in FAULT_ONLY (",2,5,"), the folder is copied to
 *              FAULT_COPIES + number: what a kill would leave
 *   copy-torn  the same, but of writes alone and after the first half of their bytes: what kill-torn would leave
 *   meanwhile  the shell runs FAULT_COMMAND before it is carried out: another program comes in between
 *
 * The real calls are made with syscall(2), which nobody intercepts, so there is nothing to look up and no recursion.
 * Variants share a name (openat64 counts as open): which one a program uses depends on how it was compiled.
 * Not seen: stores to mapped memory, links, modes and times, pwritev, C's stdio but for fwrite, io_uring.
 */
#undef _FORTIFY_SOURCE   /* else the headers define an open() of their own, */
#undef _FILE_OFFSET_BITS /* or one that is open64() in disguise; here are both */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8 && sizeof(off_t) == 8, "a 64-bit system: one register for an offset, name64 = name");
#define ALSO(name, name64) __typeof(name) name64 __attribute__((alias(#name)))

static const char *const KINDS[] = {"enospc", "short", "eio", "kill", "kill-torn", "copy", "copy-torn", "meanwhile"};
static enum { FULL, SHORT, EIO_ONCE, KILL, KILL_TORN, COPY, COPY_TORN, MEANWHILE, UNKNOWN } kind;
static const char *folder, *logfile, *copies;
static long at;
static atomic_long calls;

static void append_to_log(const char *line, long size)
{
    if (!logfile)
        return;
    int fd = syscall(SYS_openat, AT_FDCWD, logfile, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_write, fd, line, size) != size)
        abort(); /* a lost line would look like a call that was not made */
    close(fd);
}

/* Also for a process that has other variables now, since it was forked or begins anew; it counts from 1 again. */
__attribute__((constructor)) void faults_configure(void)
{
    const char *number = getenv("FAULT_AT"), *wanted = getenv("FAULT_KIND");
    folder = getenv("FAULT_DIR");
    logfile = getenv("FAULT_LOG");
    copies = getenv("FAULT_COPIES");
    at = number ? atol(number) : 0;
    calls = 0;
    kind = 0;
    while (at && kind < UNKNOWN && (!wanted || strcmp(wanted, KINDS[kind])))
        kind++;
    if (kind == UNKNOWN || ((kind == COPY || kind == COPY_TORN) && !copies))
        abort();
    append_to_log("", 0); /* an empty log: loaded, and nothing to count */
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* The folder as it is now, without folders in it; none if there is none yet. */
static void copy(long number)
{
    char path[PATH_MAX], wanted[32];
    const char *numbers = getenv("FAULT_ONLY");
    snprintf(wanted, sizeof wanted, ",%ld,", number);
    if (numbers && !strstr(numbers, wanted))
        return;
    snprintf(path, sizeof path, "%s%ld", copies, number);
    int from = syscall(SYS_openat, AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from < 0)
        return;
    int to = syscall(SYS_mkdirat, AT_FDCWD, path, 0700);
    to = to < 0 ? to : syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *names = to < 0 ? NULL : fdopendir(from);
    for (struct dirent *entry; names && (entry = readdir(names));) {
        struct stat about;
        if (entry->d_name[0] == '.' && (!entry->d_name[1] || (entry->d_name[1] == '.' && !entry->d_name[2])))
            continue;
        int in = syscall(SYS_openat, from, entry->d_name, O_RDONLY | O_CLOEXEC);
        int out = syscall(SYS_openat, to, entry->d_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (in < 0 || out < 0 || fstat(in, &about) || !S_ISREG(about.st_mode))
            abort();
        for (long rest = about.st_size, copied; rest > 0; rest -= copied)
            if ((copied = syscall(SYS_sendfile, out, in, NULL, rest)) <= 0)
                abort();
        close(in);
        close(out);
    }
    if (!names)
        abort();
    closedir(names);
    close(to);
}

static void meanwhile(void)
{
    char *environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", NULL}; /* without this library */
    const char *command = getenv("FAULT_COMMAND");
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execle("/bin/sh", "sh", "-c", command ? command : "false", NULL, environment);
        _exit(127);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ; /* it may well send us a signal */
    if (child < 0 || status)
        abort(); /* what was to happen did not */
}

/* -- the verdict: 0 to go on, -1 to fail with errno --------------------------------------------------------------- */

enum effect { CHANGES, GROWS, WRITES }; /* needs no space; needs space; needs space and can be done by half */

static __thread long copying; /* the number of a write of which the copy shall have one half */

/* `size` is halved where half is to be written; the caller then hands its result to finish(). */
static int judge(const char *name, const char *path, size_t *size, enum effect effect)
{
    size_t length = folder ? strlen(folder) : 0;
    if (!length || strncmp(path, folder, length) || (path[length] != '/' && path[length] != '\0'))
        return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    char line[2 * PATH_MAX + 100];
    const char *below = path[length] ? path + length + 1 : ".";
    append_to_log(line, snprintf(line, sizeof line, "%ld %s %zu %s\n", number, name, *size, below));

    if (!at || number < at)
        return 0;
    if (kind == MEANWHILE) {
        if (number == at)
            meanwhile();
        return 0;
    }
    if (kind == COPY || kind == COPY_TORN) {
        if (kind == COPY)
            copy(number);
        else if (effect == WRITES && *size > 1)
            *size /= 2, copying = number;
        else if (effect == WRITES)
            copy(number);
        return 0;
    }
    if (number == at && effect == WRITES && *size > 1 && (kind == SHORT || kind == KILL_TORN)) {
        *size /= 2;
        return 0;
    }
    if (kind == KILL || kind == KILL_TORN)
        die(); /* at later numbers too: no other thread gets past this one */
    if (kind == EIO_ONCE ? number > at : effect == CHANGES)
        return 0;
    errno = kind == EIO_ONCE ? EIO : ENOSPC;
    return -1;
}

/* `path` has room for PATH_MAX bytes; it is empty where the file has no name. */
static void path_of(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = '\0';
}

static int judge_fd(const char *name, int fd, size_t *size, enum effect effect)
{
    char path[PATH_MAX];
    path_of(fd, path);
    return judge(name, path, size, effect);
}

/* Links are followed up to the last part of the path, which is what the call makes, renames or removes. */
static int judge_at(const char *name, int dirfd, const char *given, size_t size, enum effect effect)
{
    char parent[PATH_MAX], path[2 * PATH_MAX];
    size_t end = strlen(given);
    while (end > 1 && given[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && given[start - 1] != '/')
        start--;
    if (end >= PATH_MAX)
        return 0;
    snprintf(parent, sizeof parent, "%.*s", start ? (int)start : 1, start ? given : ".");
    int fd = syscall(SYS_openat, dirfd, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0; /* the real call will say why */
    path_of(fd, path);
    close(fd);
    snprintf(path + strlen(path), PATH_MAX, "/%.*s", (int)(end - start), given + start);
    return judge(name, path, &size, effect);
}

/* -- writes ------------------------------------------------------------------------------------------------------- */

static ssize_t finish(ssize_t written, bool half)
{
    if (half && kind == KILL_TORN)
        die();
    if (half && kind == COPY_TORN)
        abort(); /* only of write and pwrite, see below, is the rest known here */
    return written;
}

/* Whether the half that was written is all that should be in the copy, which is made; the rest is still to be written. */
static bool is_copied(bool half)
{
    if (!half || kind != COPY_TORN)
        return false;
    copy(copying);
    return true;
}

ssize_t write(int fd, const void *data, size_t size)
{
    size_t kept = size;
    if (judge_fd("write", fd, &kept, WRITES))
        return -1;
    ssize_t written = syscall(SYS_write, fd, data, kept);
    if (written < 0 || !is_copied(kept < size))
        return finish(written, kept < size);
    return written + syscall(SYS_write, fd, (const char *)data + written, size - written);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    size_t kept = size;
    if (judge_fd("pwrite", fd, &kept, WRITES))
        return -1;
    ssize_t written = syscall(SYS_pwrite64, fd, data, kept, offset);
    if (written < 0 || !is_copied(kept < size))
        return finish(written, kept < size);
    return written + syscall(SYS_pwrite64, fd, (const char *)data + written, size - written, offset + written);
}
ALSO(pwrite, pwrite64);

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    size_t kept = size;
    if (judge_fd("writev", fd, &kept, WRITES))
        return -1;
    if (kept == size)
        return syscall(SYS_writev, fd, parts, count);
    struct iovec first[count];
    for (int i = 0; i < count; i++) {
        first[i] = parts[i];
        first[i].iov_len = parts[i].iov_len < kept ? parts[i].iov_len : kept;
        kept -= first[i].iov_len;
    }
    return finish(syscall(SYS_writev, fd, first, count), true);
}

/* NumPy's tofile and save. Flushed at once, as the C library's own write comes later and cannot be intercepted. */
size_t fwrite(const void *data, size_t size, size_t count, FILE *stream)
{
    size_t bytes = size * count, kept = bytes;
    if (judge_fd("fwrite", fileno(stream), &kept, WRITES))
        return 0;
    bool half = kept < bytes;
    flockfile(stream);
    size_t items = half ? fwrite_unlocked(data, 1, kept, stream) / size : fwrite_unlocked(data, size, count, stream);
    fflush_unlocked(stream);
    funlockfile(stream);
    if (half)
        errno = ENOSPC; /* what the C library meets when it goes on with the rest */
    return finish(items, half);
}

/* The copies of shutil and pathlib. */
ssize_t sendfile(int to, int from, off_t *offset, size_t size)
{
    size_t kept = size;
    if (judge_fd("sendfile", to, &kept, WRITES))
        return -1;
    return finish(syscall(SYS_sendfile, to, from, offset, kept), kept < size);
}
ALSO(sendfile, sendfile64);

ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t size, unsigned flags)
{
    size_t kept = size;
    if (judge_fd("copy_file_range", to, &kept, WRITES))
        return -1;
    return finish(syscall(SYS_copy_file_range, from, from_offset, to, to_offset, kept, flags), kept < size);
}

/* -- sizes and syncs ---------------------------------------------------------------------------------------------- */

int fsync(int fd) { return judge_fd("fsync", fd, &(size_t){0}, CHANGES) ? -1 : syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return judge_fd("fdatasync", fd, &(size_t){0}, CHANGES) ? -1 : syscall(SYS_fdatasync, fd); }

int ftruncate(int fd, off_t size)
{
    struct stat now;
    enum effect effect = fstat(fd, &now) == 0 && size > now.st_size ? GROWS : CHANGES;
    return judge_fd("ftruncate", fd, &(size_t){size}, effect) ? -1 : syscall(SYS_ftruncate, fd, size);
}
ALSO(ftruncate, ftruncate64);

int truncate(const char *path, off_t size)
{
    struct stat now;
    enum effect effect = stat(path, &now) == 0 && size > now.st_size ? GROWS : CHANGES;
    return judge_at("truncate", AT_FDCWD, path, size, effect) ? -1 : syscall(SYS_truncate, path, size);
}
ALSO(truncate, truncate64);

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return judge_fd("fallocate", fd, &(size_t){size}, GROWS) ? -1 : syscall(SYS_fallocate, fd, mode, offset, size);
}
ALSO(fallocate, fallocate64);

/* Returns its error; unlike the C library's it writes no zeros where the file system cannot allocate. */
int posix_fallocate(int fd, off_t offset, off_t size) { return fallocate(fd, 0, offset, size) ? errno : 0; }
ALSO(posix_fallocate, posix_fallocate64);

/* -- names -------------------------------------------------------------------------------------------------------- */

static bool exists(int dirfd, const char *path) { return syscall(SYS_faccessat, dirfd, path, F_OK) == 0; }

static int open_at(int dirfd, const char *path, int flags, mode_t mode)
{
    bool nameless = (flags & O_TMPFILE) == O_TMPFILE;
    if (nameless || flags & (O_CREAT | O_TRUNC)) {
        bool creates = nameless || (flags & O_CREAT && !exists(dirfd, path));
        if (judge_at("open", dirfd, path, 0, creates ? GROWS : CHANGES))
            return -1;
    }
    return syscall(SYS_openat, dirfd, path, flags, mode);
}

/* Where the caller gave no mode, what is read for it is rubbish that the kernel ignores. */
int openat(int dirfd, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return open_at(dirfd, path, flags, mode);
}
ALSO(openat, openat64);

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return open_at(AT_FDCWD, path, flags, mode);
}
ALSO(open, open64);

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    enum effect effect = exists(dirfd, path) ? CHANGES : GROWS;
    return judge_at("mkdir", dirfd, path, 0, effect) ? -1 : syscall(SYS_mkdirat, dirfd, path, mode);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int dirfd, const char *path, int flags)
{
    const char *name = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    return judge_at(name, dirfd, path, 0, CHANGES) ? -1 : syscall(SYS_unlinkat, dirfd, path, flags);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

/* Goes by the new name: a move out of the folder is not counted. */
int renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
    if (judge_at("rename", to_dirfd, to, 0, CHANGES))
        return -1;
    return syscall(SYS_renameat2, from_dirfd, from, to_dirfd, to, flags);
}

int renameat(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    return renameat2(from_dirfd, from, to_dirfd, to, 0);
}

int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

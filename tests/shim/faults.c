/* A disk that fails, for one folder: preloaded into a process, it counts what is written, synced, cut, made, renamed and
 * deleted there, and at a chosen operation refuses or kills. It knows nothing of what the bytes mean.
 *
 *   KUMO_FAULT_FOLDER   the folder, without a slash at its end; nothing happens without it
 *   KUMO_FAULT_OPS      which operations count: w(rites) s(yncs) t(runcations) n(ames) [all]
 *   KUMO_FAULT_NAME     only files whose name ends so count
 *   KUMO_FAULT_KILL_AT  the process is killed at this operation
 *   KUMO_FAULT_TEAR     thousandths of its bytes that a write which is stopped gets out
 *   KUMO_FAULT_FAIL_AT  operations fail from this one on ...
 *   KUMO_FAULT_COUNT    ... so many ...
 *   KUMO_FAULT_WHILE    ... and as long as this file exists
 *   KUMO_FAULT_ERRNO    with this error number [5: EIO]
 *   KUMO_FAULT_DARK     a folder: a kill is a loss of power, and what it has left is put there
 *   KUMO_FAULT_FORGET   a sync that fails takes back what it could not write, as some file systems do
 *   KUMO_FAULT_SEED     of what a loss of power leaves
 *
 * Deleting `kill-me` in the folder kills, too.
 *
 * A loss of power leaves of each write that was not synced all, some sectors, or nothing; names become durable in their
 * order. A sync that fails leaves its writes unsynced for ever, and the next one does not miss them: so do kernels.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 4096
#define FILES 4096
#define SECTOR 512
#define FOLDER_FD (-2)

struct change { /* no bytes: cut off at `offset` */
    struct change *next;
    off_t offset;
    size_t length;
    char bytes[];
};

struct file {
    dev_t device;
    ino_t number;
    char *durable;
    size_t length;
    struct change *first, **last;
};

struct name_change { /* `file` below 0: the name is gone */
    struct name_change *next;
    char name[256];
    int file;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *operations, *only, *while_path, *dark;
static size_t folder_length;
static long kill_at, fail_at, fail_count, tear, fail_errno, operation;
static int forget, announced;
static unsigned long long seed;
static int tracked[FDS]; /* 0: not ours; FOLDER_FD; else the file's index + 1 */
static struct file files[FILES];
static int file_count;
static struct { char name[256]; int file; } names[FILES]; /* as a loss of power leaves them */
static int name_count;
static struct name_change *names_first, **names_last = &names_first;

static unsigned roll(unsigned sides) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % sides;
}

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static void *need(void *memory) {
    if (!memory) abort();
    return memory;
}

/* The name of a path in the folder; NULL elsewhere. */
static const char *inside(const char *path) {
    if (!folder || strncmp(path, folder, folder_length) || path[folder_length] != '/') return NULL;
    const char *name = path + folder_length + 1;
    return *name && !strchr(name, '/') ? name : NULL;
}

static int ends(const char *name, const char *end) {
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && !strcmp(name + length - tail, end);
}

/* ---- what is durable ---- */

/* The file's index; a new file may have the number of one that is gone. */
static int file_of(int fd, int is_new) {
    struct stat status;
    if (fstat(fd, &status)) return -1;
    for (int index = 0; index < file_count; index++) {
        struct file *file = &files[index];
        if (file->device != status.st_dev || file->number != status.st_ino) continue;
        if (!is_new) return index;
        file->number = 0;
    }
    if (file_count == FILES) abort();
    struct file *file = &files[file_count];
    memset(file, 0, sizeof *file);
    file->device = status.st_dev;
    file->number = status.st_ino;
    file->last = &file->first;
    return file_count++;
}

static void cover(struct file *file, size_t length) {
    if (length <= file->length) return;
    file->durable = need(realloc(file->durable, length));
    memset(file->durable + file->length, 0, length - file->length);
    file->length = length;
}

static void apply(struct file *file, off_t offset, const char *bytes, size_t length) {
    if (length == 0) {
        cover(file, (size_t)offset);
        file->length = (size_t)offset;
        return;
    }
    cover(file, (size_t)offset + length);
    memcpy(file->durable + offset, bytes, length);
}

static void changed(int fd, off_t offset, const char *bytes, size_t length) {
    int index = tracked[fd] - 1;
    if (!dark || index < 0) return;
    struct change *change = need(malloc(sizeof *change + length));
    change->next = NULL;
    change->offset = offset;
    change->length = length;
    if (length) memcpy(change->bytes, bytes, length);
    *files[index].last = change;
    files[index].last = &change->next;
}

/* Ends what was waiting for a sync: it is durable, or lost. */
static void settle(struct file *file, int durable) {
    for (struct change *change = file->first, *next; change; change = next) {
        next = change->next;
        if (durable) apply(file, change->offset, change->bytes, change->length);
        free(change);
    }
    file->first = NULL;
    file->last = &file->first;
}

static void set_name(const char *name, int file) {
    int place = 0;
    while (place < name_count && strcmp(names[place].name, name)) place++;
    if (place == FILES) abort();
    if (place == name_count) name_count++;
    snprintf(names[place].name, sizeof names[place].name, "%s", name);
    names[place].file = file;
}

static void settle_names(int most) {
    while (names_first && most-- != 0) {
        struct name_change *change = names_first;
        names_first = change->next;
        set_name(change->name, change->file);
        free(change);
    }
    if (!names_first) names_last = &names_first;
}

static void named(const char *name, int file) {
    if (!dark) return;
    struct name_change *change = need(calloc(1, sizeof *change));
    snprintf(change->name, sizeof change->name, "%s", name);
    change->file = file;
    *names_last = change;
    names_last = &change->next;
}

static void write_all(int fd, const char *bytes, size_t length) {
    while (length) {
        ssize_t written = syscall(SYS_write, fd, bytes, length);
        if (written <= 0) abort();
        bytes += written;
        length -= (size_t)written;
    }
}

static void lose_power(void) {
    int pending = 0;
    for (struct name_change *change = names_first; change; change = change->next) pending++;
    settle_names((int)roll((unsigned)pending + 1));
    for (int index = 0; index < file_count; index++) {
        struct file *file = &files[index];
        unsigned mood = roll(4); /* all, nothing, or each change for itself */
        for (struct change *change = file->first; change; change = change->next) {
            unsigned fate = mood < 2 ? mood : roll(3);
            if (fate == 0) apply(file, change->offset, change->bytes, change->length);
            for (size_t at = 0; fate == 2 && at < change->length; at += SECTOR) {
                size_t length = change->length - at < SECTOR ? change->length - at : SECTOR;
                if (roll(2)) apply(file, change->offset + (off_t)at, change->bytes + at, length);
            }
        }
    }
    int target = (int)syscall(SYS_openat, AT_FDCWD, dark, O_RDONLY | O_DIRECTORY, 0);
    for (int place = 0; place < name_count; place++) {
        if (names[place].file < 0 || ends(names[place].name, "-shm")) continue;
        int fd = (int)syscall(SYS_openat, target, names[place].name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (fd < 0) abort();
        write_all(fd, files[names[place].file].durable, files[names[place].file].length);
        syscall(SYS_close, fd);
    }
}

/* ---- which operation fails ---- */

static void die(void) {
    if (dark) lose_power();
    raise(SIGKILL);
    _exit(137);
}

static void announce(const char *what, char kind, const char *name) {
    char line[512];
    if (announced++) return;
    int length = snprintf(line, sizeof line, "faults: %s at operation %ld: %c %s\n", what, operation, kind, name);
    write_all(2, line, (size_t)length);
}

enum verdict { GO, FAIL, KILL };

static enum verdict verdict(char kind, const char *name) {
    if (operations && !strchr(operations, kind)) return GO;
    if (only && !ends(name, only)) return GO;
    operation++;
    if (kill_at && operation == kill_at) {
        announce("killed", kind, name);
        return KILL;
    }
    if (fail_at && operation >= fail_at && operation - fail_at < fail_count
        && (!while_path || !syscall(SYS_faccessat, AT_FDCWD, while_path, F_OK))) {
        announce("failing", kind, name);
        return FAIL;
    }
    return GO;
}

static char fd_names[FDS][256];

static int ours(int fd) {
    return fd >= 0 && fd < FDS && tracked[fd] > 0;
}

/* A write: asks, writes what may be written, and takes note. */
static ssize_t put(int fd, const char *bytes, size_t length, off_t offset) {
    pthread_mutex_lock(&lock);
    enum verdict what = verdict('w', fd_names[fd]);
    size_t part = what == GO ? length : length * (size_t)tear / 1000;
    ssize_t written = part ? syscall(SYS_pwrite64, fd, bytes, part, offset) : 0;
    int error = errno;
    if (written > 0) changed(fd, offset, bytes, (size_t)written);
    if (what == KILL) die();
    pthread_mutex_unlock(&lock);
    errno = what == FAIL ? (int)fail_errno : error;
    return what == FAIL ? -1 : written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return ours(fd) ? put(fd, bytes, length, offset) : syscall(SYS_pwrite64, fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return pwrite(fd, bytes, length, offset);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!ours(fd)) return syscall(SYS_write, fd, bytes, length);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t written = put(fd, bytes, length, offset);
    if (written > 0) lseek(fd, offset + written, SEEK_SET);
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!ours(fd)) return syscall(SYS_writev, fd, parts, count);
    for (int part = 0; part < count; part++)
        if (parts[part].iov_len) return write(fd, parts[part].iov_base, parts[part].iov_len);
    return 0;
}

static int cut(int fd, off_t length) {
    if (!ours(fd)) return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    enum verdict what = verdict('t', fd_names[fd]);
    if (what == KILL) die();
    int result = what == FAIL ? -1 : (int)syscall(SYS_ftruncate, fd, length);
    int error = what == FAIL ? (int)fail_errno : errno;
    if (!result) changed(fd, length, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

/* Puts back what the file had before the writes that a sync has lost. */
static void take_back(int fd, struct file *file) {
    for (struct change *change = file->first; change; change = change->next) {
        size_t start = (size_t)change->offset, end = start + change->length;
        if (end > file->length) end = file->length;
        if (start < end) syscall(SYS_pwrite64, fd, file->durable + start, end - start, change->offset);
        static const char nothing[SECTOR];
        for (size_t at = start > file->length ? start : file->length; at < start + change->length; at += SECTOR) {
            size_t rest = start + change->length - at;
            syscall(SYS_pwrite64, fd, nothing, rest < SECTOR ? rest : SECTOR, at);
        }
    }
}

static int sync_it(int fd, long call) {
    int is_folder = fd >= 0 && fd < FDS && tracked[fd] == FOLDER_FD;
    if (!ours(fd) && !is_folder) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    enum verdict what = verdict('s', fd_names[fd]);
    if (what == KILL) die();
    if (dark && is_folder) {
        if (what == GO) settle_names(-1);
    } else if (dark) {
        struct file *file = &files[tracked[fd] - 1];
        if (what == FAIL && forget) take_back(fd, file);
        settle(file, what == GO);
    }
    pthread_mutex_unlock(&lock);
    errno = (int)fail_errno;
    return what == FAIL ? -1 : 0;
}

int fsync(int fd) { return sync_it(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_it(fd, SYS_fdatasync); }

static int open_it(int at, const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    int is_folder = folder && !strcmp(path, folder);
    if (!name && !is_folder) return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = name && (flags & O_CREAT) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK);
    enum verdict what = is_new ? verdict('n', name) : GO;
    if (what == KILL) die();
    int fd = what == FAIL ? -1 : (int)syscall(SYS_openat, at, path, flags, mode);
    int error = what == FAIL ? (int)fail_errno : errno;
    if (fd >= FDS) abort();
    if (fd >= 0 && is_folder) {
        tracked[fd] = FOLDER_FD;
        fd_names[fd][0] = 0;
    } else if (fd >= 0) {
        int file = file_of(fd, is_new);
        tracked[fd] = file + 1;
        snprintf(fd_names[fd], sizeof fd_names[fd], "%s", name);
        if (is_new) named(name, file);
        if (!is_new && (flags & O_TRUNC)) changed(fd, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return open_it(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_it(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_it(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_it(at, path, flags, mode); }

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) tracked[fd] = 0;
    pthread_mutex_unlock(&lock);
    return (int)syscall(SYS_close, fd);
}

int unlink(const char *path) {
    const char *name = inside(path);
    if (!name) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    if (!strcmp(name, "kill-me")) die();
    int there = !syscall(SYS_faccessat, AT_FDCWD, path, F_OK);
    enum verdict what = there ? verdict('n', name) : GO;
    if (what == KILL) die();
    int result = what == FAIL ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int error = what == FAIL ? (int)fail_errno : errno;
    if (!result) named(name, -1);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) {
    const char *source = inside(from), *target = inside(to);
    if (!source || !target) return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    pthread_mutex_lock(&lock);
    enum verdict what = verdict('n', target);
    if (what == KILL) die();
    int fd = (int)syscall(SYS_openat, AT_FDCWD, from, O_RDONLY, 0);
    int file = fd < 0 ? -1 : file_of(fd, 0);
    if (fd >= 0) syscall(SYS_close, fd);
    int result = what == FAIL ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    int error = what == FAIL ? (int)fail_errno : errno;
    if (!result) {
        /* In this order a loss of power in between leaves both names, never none. */
        named(target, file);
        named(source, -1);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

/* What lies in the folder at the start is durable. */
static void take_in(void) {
    char name[256];
    struct linux_dirent64 { unsigned long long ino; long long off; unsigned short reclen; unsigned char type; char name[]; };
    int at = (int)syscall(SYS_openat, AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
    char buffer[32768];
    long got;
    while ((got = syscall(SYS_getdents64, at, buffer, sizeof buffer)) > 0) {
        for (long place = 0; place < got;) {
            struct linux_dirent64 *entry = (void *)(buffer + place);
            place += entry->reclen;
            if (entry->name[0] == '.') continue;
            snprintf(name, sizeof name, "%s", entry->name);
            int fd = (int)syscall(SYS_openat, at, name, O_RDONLY, 0);
            struct stat status;
            if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode)) continue;
            int index = file_of(fd, 0);
            cover(&files[index], (size_t)status.st_size);
            if (syscall(SYS_pread64, fd, files[index].durable, status.st_size, 0) != status.st_size) abort();
            set_name(name, index);
            syscall(SYS_close, fd);
        }
    }
    syscall(SYS_close, at);
}

__attribute__((constructor)) static void begin(void) {
    folder = getenv("KUMO_FAULT_FOLDER");
    if (!folder) return;
    folder_length = strlen(folder);
    operations = getenv("KUMO_FAULT_OPS");
    only = getenv("KUMO_FAULT_NAME");
    while_path = getenv("KUMO_FAULT_WHILE");
    dark = getenv("KUMO_FAULT_DARK");
    kill_at = number("KUMO_FAULT_KILL_AT", 0);
    fail_at = number("KUMO_FAULT_FAIL_AT", 0);
    fail_count = number("KUMO_FAULT_COUNT", 1L << 40);
    tear = number("KUMO_FAULT_TEAR", 0);
    fail_errno = number("KUMO_FAULT_ERRNO", EIO);
    forget = number("KUMO_FAULT_FORGET", 0) != 0;
    seed = (unsigned long long)number("KUMO_FAULT_SEED", 1);
    if (dark) take_in();
}

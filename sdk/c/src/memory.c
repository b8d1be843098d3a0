#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether it is such memory, and stays. */
static int is_fit(int fd, size_t least, size_t *len) {
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) != 0 || status.st_size < 0) {
        return 0;
    }
    *len = (size_t)status.st_size;
    return *len >= least;
}

uint8_t *memory_map(int fd, size_t least, int is_writable, size_t *len) {
    if (!is_fit(fd, least, len)) {
        close(fd);
        errno = EPROTO;
        return NULL;
    }
    void *bytes = mmap(NULL, *len, is_writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    int number = errno;
    close(fd);
    errno = number;
    return bytes != MAP_FAILED ? bytes : NULL;
}

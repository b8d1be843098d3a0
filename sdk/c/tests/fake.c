#include "fake.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

/* No test takes so long; a thread that waits longer is one that hangs. */
enum { PATIENCE_S = 20 };

void fake_sleep_ms(int ms) {
    poll(NULL, 0, ms);
}

static void *accept_all(void *argument) {
    struct fake *fake = argument;
    for (;;) {
        int fd = accept(fake->listener, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        struct timeval patience = {PATIENCE_S, 0};
        CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
        CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0);
        atomic_fetch_add(&fake->connections, 1);
        fake->serve(fake, fd);
        close(fd);
    }
}

void fake_start(struct fake *fake, fake_serve serve, uint64_t window, int variant) {
    memset(fake, 0, sizeof *fake);
    strcpy(fake->folder, "/tmp/elcache-c-XXXXXX");
    CHECK(mkdtemp(fake->folder) != NULL);
    snprintf(fake->path, sizeof fake->path, "%s/socket", fake->folder);
    fake->serve = serve;
    fake->window = window;
    fake->variant = variant;
    struct sockaddr_un address = {0};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, fake->path, strlen(fake->path));
    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fake->listener >= 0);
    CHECK(bind(fake->listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(fake->listener, 8) == 0);
    CHECK(pthread_create(&fake->thread, NULL, accept_all, fake) == 0);
}

void fake_stop(struct fake *fake) {
    shutdown(fake->listener, SHUT_RDWR);
    CHECK(pthread_join(fake->thread, NULL) == 0);
    close(fake->listener);
    unlink(fake->path);
    CHECK(rmdir(fake->folder) == 0);
}

static int read_all(int fd, uint8_t *bytes, size_t len) {
    while (len > 0) {
        ssize_t got = recv(fd, bytes, len, 0);
        if (got <= 0) {
            return 0;
        }
        bytes += got;
        len -= (size_t)got;
    }
    return 1;
}

int fake_write(int fd, const void *bytes, size_t len) {
    const uint8_t *at = bytes;
    while (len > 0) {
        ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);
        if (sent <= 0) {
            return 0;
        }
        at += sent;
        len -= (size_t)sent;
    }
    return 1;
}

int fake_read(int fd, struct fake_frame *frame) {
    uint8_t header[FRAME_HEADER_LEN];
    free(frame->bytes);
    frame->bytes = NULL;
    if (!read_all(fd, header, sizeof header)) {
        return 0;
    }
    CHECK(frame_header_decode(header, &frame->header) == NULL);
    size_t len = frame->header.fields_len + (size_t)frame->header.data_len;
    frame->bytes = malloc(len + 1);
    CHECK(frame->bytes != NULL);
    if (!read_all(fd, frame->bytes, len)) {
        free(frame->bytes);
        frame->bytes = NULL;
        return 0;
    }
    CHECK(frame_fields_decode(frame->bytes, frame->header.fields_len, &frame->fields) == NULL);
    return 1;
}

size_t fake_encode(uint8_t *bytes, enum frame_kind kind, unsigned flags, uint64_t id, const struct fake_number *numbers,
                   size_t count, uint64_t data_len) {
    struct frame_writer writer = {0};
    writer.bytes = memset(bytes, 0, FAKE_HEAD_LEN);
    writer.capacity = FAKE_HEAD_LEN;
    frame_begin(&writer, kind, flags, id);
    for (size_t i = 0; i < count; i++) {
        frame_add_number(&writer, numbers[i].tag, numbers[i].value);
    }
    frame_finish(&writer, data_len);
    CHECK(!writer.overflow);
    return writer.len;
}

void fake_greet_with(struct fake *fake, int fd, uint64_t features) {
    uint8_t preamble[FRAME_PREAMBLE_LEN];
    struct fake_frame hello = {0};
    CHECK(read_all(fd, preamble, sizeof preamble));
    CHECK(memcmp(preamble, FRAME_PREAMBLE, sizeof preamble) == 0);
    CHECK(fake_read(fd, &hello) && hello.header.kind == FRAME_HELLO && hello.header.id == 0);
    CHECK(frame_number(&hello.fields, TAG_VERSION_MIN, 0) == 1 && frame_number(&hello.fields, TAG_VERSION_MAX, 0) == 1);
    free(hello.bytes);

    const struct fake_number numbers[] = {
        {TAG_VERSION_MIN, 1}, {TAG_VERSION_MAX, 1}, {TAG_FEATURES, features}, {TAG_REQUESTS, 4},
        {TAG_WINDOW, fake->window}, {TAG_SIZE, ELCACHE_MAX_VALUE_LEN},
    };
    uint8_t bytes[FAKE_HEAD_LEN];
    fake_write(fd, bytes, fake_encode(bytes, FRAME_HELLO, 0, 0, numbers, sizeof numbers / sizeof *numbers, 0));
}

void fake_greet(struct fake *fake, int fd) {
    fake_greet_with(fake, fd, 0);
}

int fake_greet_and_read(struct fake *fake, int fd, struct fake_frame *frame) {
    fake_greet(fake, fd);
    return fake_read(fd, frame);
}

int fake_tell(int fd, uint64_t id, unsigned flags, const struct fake_number *numbers, size_t count, const void *data,
              size_t len) {
    uint8_t bytes[FAKE_HEAD_LEN];
    return fake_write(fd, bytes, fake_encode(bytes, FRAME_REPLY, flags, id, numbers, count, len)) &&
           fake_write(fd, data, len);
}

int fake_reply(int fd, uint64_t id, unsigned flags, uint64_t status, uint64_t length, const void *data, size_t len) {
    uint8_t bytes[128] = {0};
    struct frame_writer writer = {0};
    writer.bytes = bytes;
    writer.capacity = sizeof bytes;
    frame_begin(&writer, FRAME_REPLY, flags, id);
    frame_add_number(&writer, TAG_STATUS, status);
    frame_add_number(&writer, TAG_SIZE, length);
    frame_add_number(&writer, TAG_LENGTH, length);
    if (status > STATUS_PARTIAL) {
        frame_add_bytes(&writer, TAG_MESSAGE, "so says the fake", 16);
    }
    frame_finish(&writer, len);
    return fake_write(fd, bytes, writer.len) && fake_write(fd, data, len);
}

int fake_data(int fd, uint64_t id, unsigned flags, const void *data, size_t len) {
    uint8_t bytes[FAKE_HEAD_LEN];
    return fake_write(fd, bytes, fake_encode(bytes, FRAME_DATA, flags, id, NULL, 0, len)) && fake_write(fd, data, len);
}

int fake_credit(int fd, uint64_t id, uint64_t window) {
    const struct fake_number credit = {TAG_WINDOW, window};
    uint8_t bytes[FAKE_HEAD_LEN];
    return fake_write(fd, bytes, fake_encode(bytes, FRAME_CREDIT, 0, id, &credit, 1, 0));
}

void fake_linger(int fd) {
    uint8_t bytes[65536];
    while (recv(fd, bytes, sizeof bytes, 0) > 0) {
    }
}

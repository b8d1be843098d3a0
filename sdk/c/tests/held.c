#include "held.h"

#include <dirent.h>
#include <unistd.h>

#include "check.h"

static int begins_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

int held_descriptors(pid_t pid, const char *name) {
    char path[300];
    char target[300];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        snprintf(path, sizeof path, "/proc/%d/fd/%.200s", (int)pid, entry->d_name);
        ssize_t len = readlink(path, target, sizeof target - 1);
        target[len > 0 ? len : 0] = '\0';
        count += begins_with(target, name);
    }
    closedir(folder);
    return count;
}

int held_mappings(pid_t pid, const char *name) {
    char line[1024];
    int count = 0;
    snprintf(line, sizeof line, "/proc/%d/maps", (int)pid);
    FILE *file = fopen(line, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        const char *path = strchr(line, '/');
        count += path != NULL && begins_with(path, name);
    }
    fclose(file);
    return count;
}

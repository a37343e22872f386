// Shifts the system clock of a process by what the file named in SAFE_POLICY_CLOCK holds (a double, seconds):
// a step of CLOCK_REALTIME as a time server makes it, without touching the machine's clock. Steady clocks stay.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *offset;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void) {
    real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("SAFE_POLICY_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file >= 0) {
        void *memory = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
        if (memory != MAP_FAILED) offset = memory;
        close(file);
    }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real_gettime) real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_gettime(clock, now);
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        double shift = *offset, whole = floor(shift);
        now->tv_sec += (time_t)whole;
        now->tv_nsec += (long)((shift - whole) * 1e9);
        if (now->tv_nsec >= 1000000000L) { now->tv_nsec -= 1000000000L; now->tv_sec++; }
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (out) *out = precise.tv_sec;
    return precise.tv_sec;
}

/* What reading costs at the least: the same files, kept open, one pread(2) each a round, and nothing done with them.
 *
 *     read_limit ROUNDS
 *
 * Standard input: the paths, one a line, and an empty line. Then each further line starts a measurement, whose result,
 * CPU nanoseconds a round, is a line on standard output.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static char buffer[8192];

static void read_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        if (pread(fds[i], buffer, sizeof buffer, 0) < 0) {
            perror("pread");
            exit(1);
        }
}

static double cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

int main(int argc, char **argv)
{
    int rounds = argc == 2 ? atoi(argv[1]) : 0;
    if (rounds < 1) {
        fprintf(stderr, "usage: read_limit ROUNDS, with paths, an empty line, and one line a measurement on standard input\n");
        return 2;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    char line[4096];
    int *fds = NULL, count = 0;
    while (fgets(line, sizeof line, stdin) && line[0] != '\n') {
        line[strcspn(line, "\n")] = 0;
        fds = realloc(fds, (count + 1) * sizeof *fds);
        if (!fds || (fds[count++] = open(line, O_RDONLY | O_CLOEXEC)) < 0) {
            perror(line);
            return 1;
        }
    }
    while (fgets(line, sizeof line, stdin)) {
        read_all(fds, count); /* what was cached of it may have been displaced meanwhile */
        double before = cpu_ns();
        for (int i = 0; i < rounds; i++)
            read_all(fds, count);
        printf("%.0f\n", (cpu_ns() - before) / rounds);
        fflush(stdout);
    }
    return 0;
}

/*
 * What the containers of the tests run. Its arguments are done one after another:
 *
 *   burn MS    uses MS milliseconds of CPU time (user mode)
 *   hold MIB   touches MIB MiB of anonymous memory, and keeps them
 *   sleep MS
 *   busy       uses all the CPU time that it gets, for ever
 *   exit CODE
 *   pause      waits for SIGTERM or SIGINT, and reaps what is left to it (as the first process of a pod's sandbox)
 *
 * The end of the arguments is exit code 0. Wrong ones are exit code 64.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void end(int signal_number)
{
	(void)signal_number;
	_exit(0);
}

static void reap(int signal_number)
{
	(void)signal_number;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static long long cpu_time_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void burn(long long ns)
{
	long long end_ns = cpu_time_ns() + ns;
	volatile unsigned long sink = 0;

	while (cpu_time_ns() < end_ns)
		for (int i = 0; i < 20000; i++)
			sink += i;
}

static void hold(size_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		exit(65);
	memset(memory, 1, bytes);
}

static void sleep_ms(long ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&left, &left) != 0)
		;
}

int main(int argc, char **argv)
{
	/* The kernel gives the first process of a pid namespace no default actions. */
	signal(SIGTERM, end);
	signal(SIGINT, end);
	signal(SIGCHLD, reap);
	for (int i = 1; i < argc; i++) {
		const char *verb = argv[i];
		long amount = i + 1 < argc ? atol(argv[i + 1]) : -1;

		if (strcmp(verb, "pause") == 0)
			for (;;)
				pause();
		if (strcmp(verb, "busy") == 0)
			for (;;)
				burn(1000000000LL);
		if (amount < 0)
			return 64;
		i++;
		if (strcmp(verb, "burn") == 0)
			burn(amount * 1000000LL);
		else if (strcmp(verb, "hold") == 0)
			hold((size_t)amount << 20);
		else if (strcmp(verb, "sleep") == 0)
			sleep_ms(amount);
		else if (strcmp(verb, "exit") == 0)
			return (int)amount;
		else
			return 64;
	}
	return 0;
}

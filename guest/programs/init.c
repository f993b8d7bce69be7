/*
 * init: the first process of the guest.
 *
 * Mounts the kernel's file systems. With `warp.run="COMMAND"` on the kernel command line it runs COMMAND with the
 * shell, prints `warp: exit status N` and powers the machine off; without, it keeps a shell on the console.
 * Deliberately absent: services, log files, network.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *type, *where, *options;
} MOUNTS[] = {
    {"proc", "/proc", ""},          {"sysfs", "/sys", ""},
    {"devtmpfs", "/dev", ""},       {"devpts", "/dev/pts", ""},
    {"tmpfs", "/dev/shm", ""},      {"tmpfs", "/tmp", ""},
    {"debugfs", "/sys/kernel/debug", ""},
};

/* What a shell's exit status would be for this wait status. */
static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void mount_all(void)
{
    for (size_t i = 0; i < sizeof MOUNTS / sizeof *MOUNTS; i++) {
        mkdir(MOUNTS[i].where, 0755);
        if (mount(MOUNTS[i].type, MOUNTS[i].where, MOUNTS[i].type, 0, MOUNTS[i].options) != 0 && errno != EBUSY)
            fprintf(stderr, "init: cannot mount %s: %s\n", MOUNTS[i].where, strerror(errno));
    }
}

/* Reads a small file as a string without its last line feed; an empty string if that fails. */
static void read_line(const char *path, char *line, size_t size)
{
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        n = read(fd, line, size - 1);
        close(fd);
    }
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

/* The value of `key` on the kernel command line, in place; quotes as the kernel reads them. NULL if absent. */
static char *command_line_value(char *line, const char *key)
{
    size_t length = strlen(key);

    while (*line) {
        char *start = line + strspn(line, " ");
        bool quoted = false;
        char *end = start;

        for (; *end && (quoted || *end != ' '); end++)
            quoted ^= *end == '"';
        line = *end ? end + 1 : end;
        /* The kernel accepts both key="a b" and "key=a b". */
        if (*start == '"')
            start++;
        if (strncmp(start, key, length) != 0 || start[length] != '=')
            continue;
        *end = '\0';
        if (end > start && end[-1] == '"')
            end[-1] = '\0';
        start += length + 1;
        return *start == '"' ? start + 1 : start;
    }
    return NULL;
}

/* Starts a program in a session of its own, with the console's terminal as the controlling one. */
static pid_t start(char *const argv[])
{
    char name[64], path[80] = "/dev/console";
    pid_t child = fork();

    if (child != 0)
        return child;
    setsid();
    /* /dev/console itself can't be a controlling terminal: ask which device is behind it. */
    read_line("/sys/class/tty/console/active", name, sizeof name);
    if (*name) {
        const char *last = strrchr(name, ' ');
        snprintf(path, sizeof path, "/dev/%s", last ? last + 1 : name);
    }
    int fd = open(path, O_RDWR);
    if (fd >= 0) {
        ioctl(fd, TIOCSCTTY, 1);
        dup2(fd, 0);
        dup2(fd, 1);
        dup2(fd, 2);
        if (fd > 2)
            close(fd);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(argv[0], argv);
    fprintf(stderr, "init: cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static void leave(int how)
{
    fflush(NULL);
    sync();
    reboot(how);
    for (;;)
        pause();
}

/*
 * Waits until `child` ends and returns its wait status, reaping orphans on the way. Serves the signals by which
 * busybox's poweroff, halt and reboot speak to the first process.
 */
static int wait_for(pid_t child, const sigset_t *signals)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);

        if (pid == child)
            return status;
        if (pid > 0)
            continue;
        switch (sigwaitinfo(signals, NULL)) {
        case SIGUSR1:
            leave((int)RB_HALT_SYSTEM);
            break;
        case SIGUSR2:
            leave(RB_POWER_OFF);
            break;
        case SIGTERM:
            leave(RB_AUTOBOOT);
            break;
        }
    }
}

/* The value behind "key : value" in /proc/crypto, or NULL if the line has another key. */
static char *crypto_value(char *line, const char *key)
{
    size_t length = strlen(key);

    if (strncmp(line, key, length) != 0 || !strchr(" :", line[length]))
        return NULL;
    line[strcspn(line, "\n")] = '\0';
    char *value = strchr(line, ':');
    return value ? value + 1 + strspn(value + 1, " ") : NULL;
}

/*
 * Reads the kernel's list of algorithms: prints its own drivers for accelerators with the results of their self-tests,
 * unless one is still under way. Returns whether none is.
 */
static bool report_drivers(void)
{
    char line[256], driver[128] = "", report[1024] = "";
    FILE *crypto = fopen("/proc/crypto", "r");
    bool is_over = true;

    while (crypto && fgets(line, sizeof line, crypto)) {
        char *value = crypto_value(line, "driver");
        if (value)
            snprintf(driver, sizeof driver, "%s", value);
        value = crypto_value(line, "selftest");
        if (!value || strncmp(driver, "hisi", 4) != 0)
            continue;
        size_t end = strlen(report);
        snprintf(report + end, sizeof report - end, "warp: kernel driver %s, selftest %s\n", driver, value);
        is_over &= strcmp(value, "unknown") != 0;
    }
    if (crypto)
        fclose(crypto);
    if (is_over)
        fputs(report, stdout);
    return is_over;
}

/*
 * Says which accelerators the kernel offers, for the console's log: its own drivers, and the devices for user processes.
 * At the end of a job, which may be shorter than the self-tests: powering off would let them fail. The kernel tells
 * nobody when they are over, so this looks again and again, for some seconds at the most.
 */
static void report_accelerators(void)
{
    const struct timespec moment = {.tv_nsec = 5 * 1000 * 1000};
    char path[300], algorithms[256];

    for (int looks = 0; !report_drivers() && looks < 2000; looks++)
        nanosleep(&moment, NULL);

    DIR *devices = opendir("/sys/class/uacce");
    for (struct dirent *entry; devices && (entry = readdir(devices));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/sys/class/uacce/%.64s/algorithms", entry->d_name);
        FILE *file = fopen(path, "r");
        printf("warp: uacce device %s:", entry->d_name);
        while (file && fgets(algorithms, sizeof algorithms, file))
            printf(" %.*s", (int)strcspn(algorithms, "\n"), algorithms);
        printf("\n");
        if (file)
            fclose(file);
    }
    if (devices)
        closedir(devices);
}

int main(void)
{
    char command_line[4096];
    sigset_t signals;

    /* Blocked from the start, so that none is lost between the wait and the call that collects it. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    reboot(RB_DISABLE_CAD);

    mount_all();
    setenv("PATH", "/bin", 1);
    setenv("HOME", "/", 1);
    setenv("TERM", "vt102", 0);

    read_line("/proc/cmdline", command_line, sizeof command_line);
    char *job = command_line_value(command_line, "warp.run");
    if (job) {
        char *argv[] = {"/bin/sh", "-c", job, NULL};
        pid_t child = start(argv);
        int status = child < 0 ? 127 : exit_status(wait_for(child, &signals));

        report_accelerators();
        printf("warp: exit status %d\n", status);
        leave(RB_POWER_OFF);
    }

    for (;;) {
        char *argv[] = {"/bin/sh", "-i", NULL};
        pid_t child = start(argv);

        if (child < 0)
            sleep(1);
        else
            wait_for(child, &signals);
    }
}

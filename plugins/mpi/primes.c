// Counts the primes up to an integer, shared by all ranks of an MPI program.
//
// Rank 0 reads the integer from standard input, because launchers feed no other rank, and prints the result as a line of JSON.

#include <errno.h>
#include <inttypes.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The status of an item that no other attempt can mend: pcluster makes it a dead letter at once.
enum { PERMANENT = 65 };

// Numbers that a rank sieves at once: small enough for the cache of a processor.
enum { BLOCK = 1 << 18 };

// The largest integer: its square root fits into one block.
static const int64_t LARGEST = (int64_t)BLOCK * BLOCK - 1;

// Says why there is no result. Returns what the other ranks are told in the place of an integer.
static int64_t refuse(const char *what, const char *reason) {
    fprintf(stderr, "%s: %s\n", what, reason);
    return -1;
}

// Returns the integer of at most `most` that a text consists of, or -1.
static int64_t integer(const char *text, int64_t most) {
    char *end;
    errno = 0;
    intmax_t value = strtoimax(text, &end, 10);
    if (end == text || *end != '\0') return refuse(text, "not an integer");
    if (value < 0) return refuse(text, "negative");
    if (errno != 0 || value > most) return refuse(text, "too large");
    return value;
}

// Returns the integer that rank 0 reads, or -1.
static int64_t input(int argc, char **argv) {
    int64_t most = LARGEST;
    if (argc == 3 && strcmp(argv[1], "--most") == 0) most = integer(argv[2], LARGEST);
    else if (argc != 1) return refuse("usage", "primes [--most N]");
    char line[64];
    if (fgets(line, sizeof line, stdin) == NULL) return refuse("standard input", "empty");
    line[strcspn(line, "\r\n")] = '\0';
    return most < 0 ? most : integer(line, most);
}

// Crosses out the multiples of the primes up to `root` among the `length` numbers from `first` on, and returns how many are left.
static int64_t sieve(int64_t first, int64_t length, const char *crossed_below_root, int64_t root) {
    static char crossed[BLOCK];
    memset(crossed, 0, sizeof crossed);
    for (int64_t prime = 2; prime <= root; prime++) {
        if (crossed_below_root[prime]) continue;
        // The smaller multiples of a prime have a smaller factor.
        int64_t multiple = (first + prime - 1) / prime * prime;
        if (multiple < prime * prime) multiple = prime * prime;
        for (; multiple < first + length; multiple += prime) crossed[multiple - first] = 1;
    }
    int64_t left = 0;
    for (int64_t i = 0; i < length; i++) left += !crossed[i];
    return left;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);

    int64_t n = rank == 0 ? input(argc, argv) : 0;
    MPI_Bcast(&n, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
    if (n < 0) {
        MPI_Finalize();
        return PERMANENT;
    }

    // Each rank has the primes up to the square root of n.
    static char crossed[BLOCK + 1];
    int64_t root = 0;
    while ((root + 1) * (root + 1) <= n) root++;
    for (int64_t i = 2; i * i <= root; i++)
        for (int64_t j = i * i; j <= root; j += i) crossed[j] = 1;

    int64_t own = 0;
    for (int64_t block = rank; 2 + block * BLOCK <= n; block += ranks) {
        int64_t first = 2 + block * BLOCK;
        int64_t length = n - first + 1 < BLOCK ? n - first + 1 : BLOCK;
        own += sieve(first, length, crossed, root);
    }
    int64_t all = 0;
    MPI_Reduce(&own, &all, 1, MPI_INT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0) printf("{\"n\":%" PRId64 ",\"primes\":%" PRId64 ",\"ranks\":%d}\n", n, all, ranks);
    MPI_Finalize();
}

// SPDX-License-Identifier: MIT
// The key file: what is kept, who matches, what a damaged or changed file does.
#include "base/file.h"
#include "server/keys.h"
#include "tests/unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

static char folder[64], path[96];
static struct err err;

static void fresh_folder(void) {
    snprintf(folder, sizeof folder, "/tmp/couplet-keys-XXXXXX");
    if (!mkdtemp(folder)) abort();
    snprintf(path, sizeof path, "%s/keys", folder);
}
static void remove_folder(void) {
    unlink(path);
    rmdir(folder);
}
static const struct key *match(const struct keys *k, const char *scheme, const char *text) {
    char header[200];
    snprintf(header, sizeof header, "%s%s", scheme, text);
    return keys_match(k, header);
}

TEST(add_match_revoke) {
    fresh_folder();
    struct keys k = {0};
    char one[64], two[64];
    REQUIRE(keys_open(&k, folder, &err));
    CHECK_INT(k.n, 0);
    REQUIRE(keys_add(&k, "one", SCOPE_INFER, one, &err));
    REQUIRE(keys_add(&k, "two", SCOPE_ADMIN, two, &err));
    CHECK(strncmp(one, "sk-couplet-", 11) == 0 && strlen(one) == 59 && strcmp(one, two) != 0);
    CHECK(!keys_add(&k, "one", SCOPE_INFER, two, &err));
    CHECK(!keys_add(&k, "", SCOPE_INFER, two, &err) && !keys_add(&k, "a b", SCOPE_INFER, two, &err) && !keys_add(&k, "a\nb", SCOPE_INFER, two, &err));
    const struct key *key = match(&k, "Bearer ", one);
    REQUIRE(key);
    CHECK_STR(key->name, "one");
    CHECK(key->scope == SCOPE_INFER && match(&k, "bearer  ", two)->scope == SCOPE_ADMIN);
    CHECK(!match(&k, "", one) && !match(&k, "Basic ", one) && !match(&k, "Bearer ", "") && !match(&k, "Bearer", one) && !match(&k, "Bearer x", one));
    one[58] ^= 1;
    CHECK(!match(&k, "Bearer ", one));
    CHECK(keys_revoke(&k, "two", &err) && !keys_revoke(&k, "two", &err) && !match(&k, "Bearer ", two));
    keys_close(&k);
    remove_folder();
}

TEST(file_holds_hashes_only) {
    fresh_folder();
    struct keys k = {0}, other = {0};
    char text[64];
    REQUIRE(keys_open(&k, folder, &err) && keys_add(&k, "one", SCOPE_TRAIN, text, &err));
    struct stat st;
    REQUIRE(stat(path, &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0600);
    size_t len;
    char *file = file_read(path, 1 << 20, &len, &err);
    REQUIRE(file);
    CHECK(!strstr(file, text) && !strstr(file, text + 11));
    free(file);
    REQUIRE(keys_open(&other, folder, &err));
    const struct key *key = match(&other, "Bearer ", text);
    CHECK(key && key->scope == SCOPE_TRAIN && strcmp(key->id, k.items[0].id) == 0);
    keys_close(&k);
    keys_close(&other);
    remove_folder();
}

TEST(refresh_sees_changes_and_keeps_the_old_on_damage) {
    fresh_folder();
    struct keys server = {0}, command = {0};
    char text[64];
    bool changed;
    REQUIRE(keys_open(&server, folder, &err) && keys_open(&command, folder, &err));
    REQUIRE(keys_refresh(&server, &changed, &err));
    CHECK(!changed);
    REQUIRE(keys_add(&command, "one", SCOPE_INFER, text, &err));
    REQUIRE(keys_refresh(&server, &changed, &err));
    CHECK(changed && match(&server, "Bearer ", text));
    static const char *const damaged[] = {"nonsense\n", "key-1 infer 0 00 one\n", "key-1 root 0 0000000000000000000000000000000000000000000000000000000000000000 one\n"};
    for (size_t i = 0; i < 3; i++) {
        REQUIRE(file_write_atomic(path, damaged[i], strlen(damaged[i]), 0600, &err));
        CHECK(!keys_refresh(&server, &changed, &err));
        CHECK(match(&server, "Bearer ", text) != NULL);
    }
    REQUIRE(keys_revoke(&command, "one", &err) && keys_refresh(&server, &changed, &err));
    CHECK(changed && server.n == 0);
    unlink(path);
    REQUIRE(keys_refresh(&server, &changed, &err));
    keys_close(&server);
    keys_close(&command);
    remove_folder();
}

TEST(file_that_others_can_write_is_refused) {
    fresh_folder();
    struct keys k = {0};
    REQUIRE(file_write_atomic(path, "", 0, 0666, &err) && chmod(path, 0666) == 0);
    CHECK(!keys_open(&k, folder, &err));
    remove_folder();
}

TEST_MAIN("keys")

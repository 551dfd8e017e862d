/* bare.c - the bare file system once more, with libfuse alone: the cost of a daemon in C.
 *
 * usage: bare MOUNTPOINT
 *
 * The same as bare.py: a constant file in every directory, everything cached for ever, one thread.  It keeps no
 * directories, since the kernel does.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "value"
#define TEXT "9223372036854775807\n"
#define FOREVER (100 * 365 * 86400.0)

/* A directory's inode is odd, as the root's is; the file in it has the next one. */
#define STEP 2

static struct fuse_entry_param entry(fuse_ino_t inode)
{
    bool directory = inode % STEP;
    struct fuse_entry_param e = { .ino = inode, .attr_timeout = FOREVER, .entry_timeout = FOREVER };
    e.attr.st_ino = inode;
    e.attr.st_mode = directory ? S_IFDIR | 0755 : S_IFREG | 0644;
    e.attr.st_nlink = directory ? 2 : 1;
    e.attr.st_uid = getuid();
    e.attr.st_gid = getgid();
    return e;
}

static void reply_entry(fuse_req_t request, fuse_ino_t inode)
{
    struct fuse_entry_param e = entry(inode);
    fuse_reply_entry(request, &e);
}

static void reply_attributes(fuse_req_t request, fuse_ino_t inode)
{
    struct stat attributes = entry(inode).attr;
    fuse_reply_attr(request, &attributes, FOREVER);
}

static void do_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    if (strcmp(name, FILE_NAME) == 0)
        reply_entry(request, parent + 1);
    else
        fuse_reply_err(request, ENOENT);
}

static void do_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)file;
    reply_attributes(request, inode);
}

static void do_setattr(fuse_req_t request, fuse_ino_t inode, struct stat *attributes, int fields,
                       struct fuse_file_info *file)
{
    (void)attributes, (void)fields, (void)file;
    reply_attributes(request, inode);
}

static void do_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode)
{
    static fuse_ino_t made = FUSE_ROOT_ID;
    (void)parent, (void)name, (void)mode;
    reply_entry(request, made += STEP);
}

static void do_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    (void)parent, (void)name;
    fuse_reply_err(request, 0);
}

static void do_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    file->direct_io = 1;
    fuse_reply_open(request, file);
}

static void do_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)inode, (void)file;
    size_t begin = (size_t)offset < strlen(TEXT) ? (size_t)offset : strlen(TEXT);
    size_t rest = strlen(TEXT) - begin;
    fuse_reply_buf(request, TEXT + begin, rest < size ? rest : size);
}

static void do_write(fuse_req_t request, fuse_ino_t inode, const char *text, size_t size, off_t offset,
                     struct fuse_file_info *file)
{
    (void)inode, (void)text, (void)offset, (void)file;
    fuse_reply_write(request, size);
}

static const struct fuse_lowlevel_ops operations = {
    .lookup = do_lookup,
    .getattr = do_getattr,
    .setattr = do_setattr,
    .mkdir = do_mkdir,
    .rmdir = do_rmdir,
    .open = do_open,
    .read = do_read,
    .write = do_write,
};

static int serve(struct fuse_session *session, const char *mountpoint)
{
    int status = 1;
    if (fuse_set_signal_handlers(session) != 0)
        return status;
    if (fuse_session_mount(session, mountpoint) == 0) {
        status = fuse_session_loop(session) < 0; /* a signal's number is an end like any other */
        fuse_session_unmount(session);
    }
    fuse_remove_signal_handlers(session);
    return status;
}

int main(int count, char **words)
{
    char *options[] = { words[0], "-o", "default_permissions,fsname=bare,subtype=bare", NULL };
    struct fuse_args arguments = FUSE_ARGS_INIT(3, options);
    if (count != 2)
        return 2;
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (!session)
        return 1;
    int status = serve(session, words[1]);
    fuse_session_destroy(session);
    fuse_opt_free_args(&arguments);
    return status;
}

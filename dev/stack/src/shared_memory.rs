//! Whether sessions of a killed Postgres still run. They end a little later than its main process, and until the last one has
//! detached from their shared memory, no other Postgres starts on the same data.

use std::path::Path;

/// `lock` is the `postmaster.pid` that a killed Postgres leaves behind.
pub(crate) fn is_in_use(lock: &Path) -> bool {
    let Ok(lock) = std::fs::read_to_string(lock) else { return false };
    // Without this table, the kernel has no System V shared memory.
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    id(&lock).is_some_and(|id| attached(&table, id) > 0)
}

/// The id of the shared memory, from the seventh line, which has its key and id.
fn id(lock: &str) -> Option<&str> {
    lock.lines().nth(6)?.split_whitespace().nth(1)
}

/// How many processes are attached: `key shmid perms size cpid lpid nattch ...`.
fn attached(table: &str, id: &str) -> u64 {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = rows.into_iter().find(|row| row.get(1) == Some(&id));
    found.and_then(|row| row.get(6)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_has_the_id_and_the_table_the_attached_processes() {
        let lock = "30864\n/data\n1795841488\n25432\n\n127.0.0.1\n  5931187         9\nready   \n";
        let table = "       key      shmid perms                  size  cpid  lpid nattch   uid\n   \
                     5931187          9   600                    56 30864 11995      6   101\n";
        assert_eq!(id(lock), Some("9"));
        assert_eq!((attached(table, "9"), attached(table, "8")), (6, 0));
        // A Postgres that has just started has not written it yet.
        assert_eq!(id("30864\n/data\n"), None);
    }
}

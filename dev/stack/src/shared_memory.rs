//! Whether processes of a Postgres that is gone are still there. They end a little after it, and until the last one has let
//! go of their shared memory, no other Postgres starts on the same data.

use std::path::Path;

/// `lock` is the `postmaster.pid` that it left behind, if it did not end by itself.
pub(crate) fn is_in_use(lock: &Path) -> bool {
    let Ok(lock) = std::fs::read_to_string(lock) else { return false };
    // Without the table, there is no such memory on this machine.
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    id(&lock).is_some_and(|id| attached(&table, id) > 0)
}

/// The seventh line says key and id.
fn id(lock: &str) -> Option<&str> {
    lock.lines().nth(6)?.split_whitespace().nth(1)
}

/// How many processes have it: `key shmid perms size cpid lpid nattch ...`.
fn attached(table: &str, id: &str) -> u64 {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = rows.into_iter().find(|row| row.get(1) == Some(&id));
    found.and_then(|row| row.get(6)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_the_memory_and_the_table_who_has_it() {
        let lock = "30864\n/data\n1795841488\n25432\n\n127.0.0.1\n  5931187         9\nready   \n";
        let table = "       key      shmid perms                  size  cpid  lpid nattch   uid\n   \
                     5931187          9   600                    56 30864 11995      6   101\n";
        assert_eq!(id(lock), Some("9"));
        assert_eq!((attached(table, "9"), attached(table, "8")), (6, 0));
        // One that has just begun has not written it yet.
        assert_eq!(id("30864\n/data\n"), None);
    }
}

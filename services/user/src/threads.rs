//! Threads that hash passwords, which takes long: they yield to all other threads of this machine: a flood of logins slows down other calls
//! only by what the kernel needs to switch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use rustix::process::setpriority_process;
use rustix::thread::gettid;

use crate::hash::Memory;

/// As `nice` counts: 19 is the least.
const NICE: i32 = 19;

type Work = Box<dyn FnOnce(&mut Memory) + Send>;

/// They end when this is dropped.
pub(crate) struct Threads(Sender<Work>);

impl Threads {
    pub(crate) fn start(count: usize) -> Self {
        let (send, receive) = channel::<Work>();
        let receive = Arc::new(Mutex::new(receive));
        for number in 0..count {
            let receive = receive.clone();
            let run = move || {
                // On Linux, a thread has a priority of its own.
                if let Err(error) = setpriority_process(Some(gettid()), NICE) {
                    tracing::warn!(%error, "hashing passwords does not yield to other work");
                }
                let mut memory = Memory::default();
                let next = || receive.lock().expect("nothing panics while it holds this lock").recv();
                while let Ok(work) = next() {
                    // Its caller notices that there is no outcome.
                    let _ = catch_unwind(AssertUnwindSafe(|| work(&mut memory)));
                }
            };
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            thread.spawn(run).expect("a thread can be started");
        }
        Self(send)
    }

    pub(crate) fn run(&self, work: impl FnOnce(&mut Memory) + Send + 'static) {
        // Without threads, the work is dropped, which its caller notices.
        let _ = self.0.send(Box::new(work));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn they_yield_and_survive_a_panic() {
        let threads = Threads::start(1);
        let (send, lost) = oneshot::channel::<()>();
        threads.run(move |_| {
            let _send = send;
            panic!("as a bug would");
        });
        lost.await.expect_err("there is no outcome");
        let (send, done) = oneshot::channel();
        threads.run(move |_| send.send(rustix::process::getpriority_process(Some(gettid()))).expect("it waits"));
        assert_eq!(done.await.expect("the thread goes on"), Ok(NICE));
    }
}

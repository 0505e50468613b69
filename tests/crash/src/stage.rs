//! Which life of the gateway the clients are to meet. The driver sets it, the clients wait for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// One life of the gateway, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How often it had been killed.
    pub cycle: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// It is not going to be killed: everybody finishes.
    pub is_last: bool,
}

/// Where driver and clients meet.
#[derive(Default)]
pub struct Stage {
    scene: Mutex<Scene>,
    changed: Condvar,
    is_pressing: AtomicBool,
}

#[derive(Default)]
struct Scene {
    life: Option<Life>,
    is_over: bool,
}

impl Stage {
    /// The gateway listens.
    pub fn begin(&self, life: Life) {
        self.lock().life = Some(life);
        self.changed.notify_all();
    }

    /// The end is near: publishers send all that their windows allow, so that it finds much under
    /// way.
    pub fn press(&self) {
        self.is_pressing.store(true, Ordering::Relaxed);
    }

    /// Whether publishers are to make haste.
    pub fn is_pressing(&self) -> bool {
        self.is_pressing.load(Ordering::Relaxed)
    }

    /// The gateway is going away; another will come.
    pub fn interrupt(&self) {
        self.is_pressing.store(false, Ordering::Relaxed);
        self.lock().life = None;
    }

    /// No other will come.
    pub fn end(&self) {
        let mut scene = self.lock();
        scene.life = None;
        scene.is_over = true;
        self.changed.notify_all();
    }

    /// Waits for the life of this cycle or a later one, or the last. `None`: it is over.
    pub fn wait(&self, cycle: u32) -> Option<Life> {
        let mut scene = self.lock();
        loop {
            let life = scene
                .life
                .filter(|life| life.cycle >= cycle || life.is_last);
            if life.is_some() || scene.is_over {
                return life;
            }
            let woken = self.changed.wait(scene);
            scene = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a later life has begun.
    pub fn is_past(&self, life: Life) -> bool {
        let now = self.lock().life;
        now.is_some_and(|now| now.cycle > life.cycle)
    }

    // What is in there is whole whoever panicked.
    fn lock(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Everything that lives as long as the connections do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Event;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::consumer::Consumer;
use super::line::{Fault, Line};
use super::reconciler::Reconciler;
use super::relay::Lane;
use super::topology::{self, Names};
use crate::deferred::shared::{Broker, Shared};

/// Batches that are published and confirmed at a time.
const LANES: usize = 2;

/// For giving back what was claimed and not published. They end by themselves: this is for a
/// database that doesn't.
const GIVE_BACK: Duration = Duration::from_secs(10);

/// Between two looks at connections on which nothing happens.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Session {
    shared: Arc<Shared>,
    publishing: Arc<Line>,
    consuming: Arc<Line>,
    ending: CancellationToken,
    blocked: watch::Sender<bool>,
    tasks: JoinSet<Result<(), Fault>>,
}

impl Session {
    /// Connects, declares what is to be there, and begins. The queues of these kinds are broken, and
    /// declared anew.
    pub(super) async fn open(
        shared: &Arc<Shared>,
        address: &Address,
        names: &Names,
        broken: Vec<&'static str>,
    ) -> Result<Self, Fault> {
        let app = &shared.app;
        let (publishing, consuming) = (format!("{app} publishes"), format!("{app} consumes"));
        let (publishing, consuming) =
            tokio::try_join!(Line::open(address, &publishing), Line::open(address, &consuming))?;
        let channel = consuming.channel().await?;
        for kind in broken {
            topology::remove_broken(&channel, names, kind).await?;
        }
        topology::declare(&channel, names, &shared.names()).await?;
        let mut session = Self {
            shared: Arc::clone(shared),
            publishing: Arc::new(publishing),
            consuming: Arc::new(consuming),
            ending: shared.stop.child_token(),
            blocked: watch::Sender::new(false),
            tasks: JoinSet::new(),
        };
        session.begin(names);
        Ok(session)
    }

    fn begin(&mut self, names: &Names) {
        let help = Arc::new(Notify::new());
        for number in 0..LANES {
            let lane = Lane {
                shared: Arc::clone(&self.shared),
                names: names.clone(),
                line: Arc::clone(&self.publishing),
                blocked: self.blocked.subscribe(),
                ending: self.ending.clone(),
                first: number == 0,
                help: Arc::clone(&help),
            };
            self.tasks.spawn(lane.run());
        }
        for kind in self.shared.kinds.values() {
            let consumer = Consumer {
                shared: Arc::clone(&self.shared),
                kind: Arc::clone(kind),
                names: names.clone(),
                line: Arc::clone(&self.consuming),
                ending: self.ending.clone(),
                deliveries: TaskTracker::new(),
                away: Notify::new(),
            };
            self.tasks.spawn(Arc::new(consumer).run());
        }
        let reconciler = Reconciler {
            shared: Arc::clone(&self.shared),
            names: names.clone(),
            line: Arc::clone(&self.consuming),
            ending: self.ending.clone(),
        };
        self.tasks.spawn(reconciler.run());
    }

    /// Until something goes wrong, or until the runtime stops and what runs is acked.
    pub(super) async fn run(mut self) -> Result<(), Fault> {
        self.shared.set_broker(Broker::Work);
        let mut publishing = self.publishing.events();
        let mut consuming = self.consuming.events();
        let ended = loop {
            let seen = tokio::select! {
                event = publishing.next() => self.heed(event),
                event = consuming.next() => self.heed(event),
                task = self.tasks.join_next() => match task {
                    None => break Ok(()),
                    Some(Ok(ended)) => ended,
                    Some(Err(_)) => Err(Fault::Because("part of the carrier panicked")),
                },
                () = sleep(LOOK) => self.publishing.check().and(self.consuming.check()),
            };
            if seen.is_err() {
                break seen;
            }
        };
        if ended.is_err() {
            self.shared.set_broker(Broker::Down);
        }
        self.ending.cancel();
        tokio::join!(self.publishing.close(), self.consuming.close());
        // Nothing is waiting for the broker any more. What was claimed is given back.
        let _ = timeout(GIVE_BACK, async { while self.tasks.join_next().await.is_some() {} }).await;
        ended
    }

    fn heed(&self, event: Option<Event>) -> Result<(), Fault> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker takes no messages for now");
                self.shared.set_broker(Broker::Down);
                self.blocked.send_replace(true);
            }
            Some(Event::ConnectionUnblocked) => {
                self.blocked.send_replace(false);
                self.shared.set_broker(Broker::Work);
            }
            Some(Event::Error(error)) => return Err(error.into()),
            Some(_) => {}
            None => return Err(Fault::Because("the connection is gone")),
        }
        Ok(())
    }
}

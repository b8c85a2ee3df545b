//! RabbitMQ for tests: one ephemeral node per test process, one virtual host per test.
//!
//! ```no_run
//! use backing::rabbitmq::testing::TestBroker;
//!
//! let vhost = TestBroker::shared().vhost();
//! println!("{}", vhost.url());
//! ```
//!
//! Everything here panics where it fails, and blocks: the first call for some 4 s, a further virtual
//! host for some 20 ms.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::control::binary;
use super::{Node, USER};
use crate::certificate::Identity;
use crate::error::Error;
use crate::process::wait_until;
use crate::{Server, port};

/// How long the node may take for what it is asked to do.
const LIMIT: u32 = 30;

/// A node of its own. Dropped, or when its process ends, it leaves nothing.
#[derive(Clone, Debug)]
pub struct TestBroker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Before `node`: the server is ended before its folder goes.
    server: Mutex<Option<Server>>,
    port: u16,
    encrypted: Option<u16>,
    /// Those that there should be, to be made again after a [`TestBroker::wipe`].
    vhosts: Mutex<Vec<String>>,
    node: Node,
    /// Nothing for the shared one.
    _turn: Option<Turn>,
}

/// Nodes that are killed and started take a processor for seconds each: in a process one after the
/// other, so that tests beside them keep their times.
#[derive(Debug)]
struct Turn;

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let taken = FREED.wait_while(lock(&TAKEN), |taken| *taken);
        *taken.unwrap_or_else(PoisonError::into_inner) = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock(&TAKEN) = false;
        FREED.notify_one();
    }
}

/// What a queue holds, and who takes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Messages that wait to be delivered.
    pub ready: u64,
    /// Messages that were delivered and are not acknowledged.
    pub unacked: u64,
    /// Consumers that have not cancelled, and whoever has fetched a message and not acknowledged it.
    pub consumers: u64,
}

impl TestBroker {
    /// The one of this process, started by the first call. Not to be stopped: others are using it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestBroker> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(None))
    }

    /// One that the caller may stop, kill, freeze and wipe. Waits while there is another one in this
    /// process: a test that asks for two waits for ever.
    pub fn dedicated() -> Self {
        Self::new(Some(Turn::take()))
    }

    /// A dedicated one that encrypts, too, on the port of [`TestVhost::encrypted_url`], and proves by
    /// this who it is.
    pub fn encrypted(identity: &Identity) -> Self {
        let turn = Turn::take();
        let node = expect(Node::ephemeral());
        let port = expect(port::free(1))[0];
        expect(node.identify(identity, port));
        Self::on(node, Some(port), Some(turn))
    }

    fn new(turn: Option<Turn>) -> Self {
        Self::on(expect(Node::ephemeral()), None, turn)
    }

    fn on(node: Node, encrypted: Option<u16>, turn: Option<Turn>) -> Self {
        let server = expect(node.start(None));
        Self(Arc::new(Inner {
            port: server.port(),
            encrypted,
            server: Mutex::new(Some(server)),
            vhosts: Mutex::default(),
            node,
            _turn: turn,
        }))
    }

    /// A new virtual host.
    pub fn vhost(&self) -> TestVhost {
        static COUNT: AtomicU32 = AtomicU32::new(1);

        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        expect(self.0.add_vhost(&name));
        lock(&self.0.vhosts).push(name.clone());
        TestVhost { url: self.0.node.url_of(self.0.port, &name), name, broker: Arc::clone(&self.0) }
    }

    /// Stops it as an operator would. Its messages are kept.
    pub fn stop(&self) {
        if let Some(server) = lock(&self.0.server).take() {
            server.stop();
        }
    }

    /// SIGKILL, as a crash would.
    pub fn kill(&self) {
        if let Some(server) = lock(&self.0.server).take() {
            server.kill();
        }
    }

    /// Starts it again, on the same port with the same data. Returns when it accepts connections.
    pub fn start(&self) {
        let mut server = lock(&self.0.server);
        if server.is_none() {
            *server = Some(expect(self.0.node.start(Some(self.0.port))));
        }
    }

    /// A lost disk: kills it, removes its data, and starts it again with nothing in it but the
    /// virtual hosts, empty.
    pub fn wipe(&self) {
        self.kill();
        expect(self.0.node.wipe());
        self.start();
        for vhost in lock(&self.0.vhosts).iter() {
            expect(self.0.add_vhost(vhost));
        }
    }

    /// SIGSTOP: connections stay open, and nobody answers.
    pub fn freeze(&self) {
        if let Some(server) = &*lock(&self.0.server) {
            server.freeze();
        }
    }

    /// Ends a [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        if let Some(server) = &*lock(&self.0.server) {
            server.thaw();
        }
    }

    /// Raises the memory alarm, upon which RabbitMQ blocks all who publish, or clears it. Returns
    /// when it is in force. A start clears it, too.
    pub fn set_memory_alarm(&self, raised: bool) {
        // 0.4 is RabbitMQ's default.
        let watermark = if raised { "0.0000001" } else { "0.4" };
        expect(
            self.evaluate(&format!("vm_memory_monitor:set_vm_memory_high_watermark({watermark})")),
        );
        let alarms =
            "[memory || {{resource_limit, memory, _}, _} <- rabbit_alarm:get_alarms()] =/= []";
        let settled = wait_until(Duration::from_secs(10), || {
            expect(self.evaluate(alarms)) == raised.to_string()
        });
        assert!(settled, "the memory alarm stayed {}", !raised);
    }

    /// Closes every client's connection from the node's side, and returns how many those were: one
    /// may end by itself meanwhile.
    pub fn close_connections(&self) -> usize {
        let closed = self.evaluate(
            "length([One || One <- rabbit_networking:connections_local(), \
             ok =:= (catch rabbit_networking:close_connection(One, \"closed by a test\"))])",
        );
        expect(expect(closed).parse())
    }

    /// Deletes a queue with all that is in it: `false` if there was none.
    pub fn delete_queue(&self, vhost: &str, name: &str) -> bool {
        let deleted = expect(self.evaluate(&format!(
            "case rabbit_amqqueue:lookup(rabbit_misc:r({}, queue, {})) of \
             {{ok, Queue}} -> {{ok, _}} = rabbit_amqqueue:delete(Queue, false, false, <<\"test\">>), true; \
             {{error, not_found}} -> false end",
            binary(vhost),
            binary(name)
        )));
        deleted == "true"
    }

    /// Takes away what a quorum queue runs in and has written, as a crash at the wrong moment does:
    /// RabbitMQ knows of it still, and nobody answers for it.
    pub fn break_queue(&self, vhost: &str, name: &str) {
        expect(self.evaluate(&format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r({}, queue, {})), \
             ra:force_delete_server(quorum_queues, amqqueue:get_pid(Queue))",
            binary(vhost),
            binary(name)
        )));
    }

    /// The queues of a virtual host by name, from where `rabbitmqctl list_queues` has it too. The
    /// numbers of a quorum queue are up to 200 ms old; of one that was killed they are 0 until it has
    /// read its log.
    pub fn queues(&self, vhost: &str) -> Vec<Queue> {
        let listed = expect(self.evaluate(&format!(
            "Keys = [messages_ready, messages_unacknowledged], \
             Consumers = [proplists:get_value(queue_name, Consumer) \
                          || Consumer <- rabbit_amqqueue:consumers_all({0})], \
             lists:flatten([begin \
                 {{_, Queue = {{resource, _, queue, Name}}}} = lists:keyfind(name, 1, Info), \
                 Counts = [case lists:keyfind(Key, 1, Info) of \
                               {{_, Count}} when is_integer(Count) -> Count; _ -> 0 end || Key <- Keys], \
                 Consuming = length([Of || Of <- Consumers, Of =:= Queue]), \
                 io_lib:format(\"~ts ~b ~b ~b \", [Name | Counts] ++ [Consuming]) \
             end || Info <- rabbit_amqqueue:info_all({0}, [name | Keys])])",
            binary(vhost),
        )));
        let words: Vec<_> = listed.trim_matches(['"', '[', ']']).split_whitespace().collect();
        let mut queues: Vec<Queue> = words
            .chunks(4)
            .map(|queue| match *queue {
                [name, ready, unacked, consumers] => Queue {
                    name: name.to_owned(),
                    ready: expect(ready.parse()),
                    unacked: expect(unacked.parse()),
                    consumers: expect(consumers.parse()),
                },
                _ => panic!("the node said: {listed}"),
            })
            .collect();
        queues.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        queues
    }

    /// The output of RabbitMQ's own `rabbitmqctl`, which takes about a second.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        expect(self.0.node.rabbitmqctl(arguments))
    }

    /// Has the node write the names of its queues to its disk. By itself it does so seconds after it
    /// has confirmed their first messages, and a queue that isn't written when the node is killed is
    /// empty when it is back.
    pub fn write_names(&self) {
        expect(self.evaluate("[ok = dets:sync(Table) || Table <- dets:all()]"));
    }

    #[cfg(test)]
    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }

    fn evaluate(&self, expression: &str) -> Result<String, Error> {
        self.0.node.evaluate(expression, LIMIT)
    }
}

impl Inner {
    fn add_vhost(&self, name: &str) -> Result<String, Error> {
        let (vhost, user) = (binary(name), binary(USER));
        self.node.evaluate(
            &format!(
                "ok = rabbit_vhost:add({vhost}, <<\"test\">>), \
                 ok = rabbit_auth_backend_internal:set_permissions({user}, {vhost}, \
                 <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"test\">>)"
            ),
            LIMIT,
        )
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nothing of it is kept: no reason to wait for a clean end.
        if let Some(server) = lock(&self.server).take() {
            server.kill();
        }
    }
}

/// One test's virtual host. Dropped, it is gone, and whoever is still connected is cut off.
#[derive(Debug)]
pub struct TestVhost {
    name: String,
    url: String,
    broker: Arc<Inner>,
}

impl TestVhost {
    /// Its address, with the password in it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address at which a [`TestBroker::encrypted`] one encrypts, by the name of a host.
    pub fn encrypted_url(&self, host: &str) -> String {
        let port =
            self.broker.encrypted.unwrap_or_else(|| panic!("test broker: it doesn't encrypt"));
        format!("amqps://{}@{host}:{port}/{}", self.broker.node.credentials(), self.name)
    }

    /// Its name, as [`TestBroker::queues`] wants it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestVhost {
    fn drop(&mut self) {
        lock(&self.broker.vhosts).retain(|name| *name != self.name);
        // Best effort, and bounded: the node may be stopped or frozen, and it goes with the process
        // anyway.
        let _ = self
            .broker
            .node
            .evaluate(&format!("rabbit_vhost:delete({}, <<\"test\">>)", binary(&self.name)), 2);
    }
}

/// With the whole chain of causes, which `expect` of the standard library would give in `Debug`'s form.
fn expect<T, E: Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("test broker: {error:?}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

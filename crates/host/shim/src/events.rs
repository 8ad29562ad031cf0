//! Tells containerd what happens to tasks, in the order in which it happens.
//!
//! One thread sends; a containerd that is being restarted is waited for a while. Events that do not fit the queue
//! are lost, so that a containerd that is gone stops nobody.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim_protos::events::task;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::context::with_duration;
use containerd_shim_protos::{Client, EventsClient, topics};

/// Most events that wait to be sent.
const QUEUE: usize = 1024;
/// How often to try to send one.
const TRIES: u32 = 5;
/// How long to wait after the first failure; twice as long after each further one.
const PAUSE: Duration = Duration::from_millis(200);
/// How long containerd has to take one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last ones have at the end.
const FAREWELL: Duration = Duration::from_secs(10);

/// What can be told.
pub(crate) trait Event: Message {
    const TOPIC: &'static str;
    const TYPE: &'static str;
}

macro_rules! events {
    ($($message:ident $topic:ident;)*) => {
        $(impl Event for task::$message {
            const TOPIC: &'static str = topics::$topic;
            const TYPE: &'static str = concat!("containerd.events.", stringify!($message));
        })*
    };
}

events! {
    TaskCreate TASK_CREATE_EVENT_TOPIC;
    TaskStart TASK_START_EVENT_TOPIC;
    TaskOOM TASK_OOM_EVENT_TOPIC;
    TaskExit TASK_EXIT_EVENT_TOPIC;
    TaskDelete TASK_DELETE_EVENT_TOPIC;
    TaskExecAdded TASK_EXEC_ADDED_EVENT_TOPIC;
    TaskExecStarted TASK_EXEC_STARTED_EVENT_TOPIC;
    TaskPaused TASK_PAUSED_EVENT_TOPIC;
    TaskResumed TASK_RESUMED_EVENT_TOPIC;
}

/// Where events go.
#[derive(Clone)]
pub(crate) struct Publisher {
    namespace: String,
    queue: SyncSender<Item>,
}

enum Item {
    Event(Box<Envelope>),
    /// Say so when all before have been sent.
    End(SyncSender<()>),
}

impl Publisher {
    /// To the containerd that listens for ttrpc at `address`.
    pub(crate) fn start(namespace: &str, address: String) -> Self {
        let (queue, items) = sync_channel(QUEUE);
        std::thread::spawn(move || send_all(&address, &items));
        Self { namespace: namespace.into(), queue }
    }

    /// Tells something. Does not wait.
    pub(crate) fn publish<E: Event>(&self, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => return tracing::warn!(%error, topic = E::TOPIC, "an event cannot be written"),
        };
        let event = Any { type_url: E::TYPE.into(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.into(),
            event: MessageField::some(event),
            ..Envelope::default()
        };
        if self.queue.try_send(Item::Event(Box::new(envelope))).is_err() {
            tracing::warn!(topic = E::TOPIC, "an event is lost: too many wait for containerd");
        }
    }

    /// Waits for what was told to be sent.
    pub(crate) fn finish(&self) {
        let (done, end) = sync_channel(1);
        if self.queue.try_send(Item::End(done)).is_ok()
            && end.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!("the last events are lost");
        }
    }
}

/// A point in time as containerd has it.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Timestamp::default()
    }
}

fn send_all(address: &str, items: &Receiver<Item>) {
    let mut client = None;
    for item in items {
        match item {
            Item::Event(envelope) => send(address, &mut client, *envelope),
            // It may have stopped waiting.
            Item::End(done) => drop(done.try_send(())),
        }
    }
}

fn send(address: &str, client: &mut Option<EventsClient>, envelope: Envelope) {
    let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
    let mut pause = PAUSE;
    for again in (0..TRIES).rev() {
        let sent = match client {
            Some(client) => client.forward(with_duration(PATIENCE), &request).map(drop),
            None => Client::connect(&format!("unix://{address}")).and_then(|connection| {
                client
                    .insert(EventsClient::new(connection))
                    .forward(with_duration(PATIENCE), &request)
                    .map(drop)
            }),
        };
        let Err(error) = sent else { return };
        *client = None;
        tracing::warn!(%error, topic = request.envelope.topic, again, "an event is not sent");
        if again > 0 {
            std::thread::sleep(pause);
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Publisher, task};
    use containerd_shim_protos::api::Empty;
    use containerd_shim_protos::shim::events::ForwardRequest;
    use containerd_shim_protos::ttrpc::{self, Server, TtrpcContext};
    use containerd_shim_protos::{Events, create_events};
    use std::sync::{Arc, Mutex, mpsc};

    struct Containerd(Mutex<mpsc::Sender<ForwardRequest>>);

    impl Events for Containerd {
        fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            self.0.lock().expect("lock").send(request).expect("sends");
            Ok(Empty::default())
        }
    }

    #[test]
    fn events_arrive_in_order_even_at_one_that_starts_late() {
        let dir = tempfile::tempdir().expect("a folder");
        let address = dir.path().join("sock").to_str().expect("a name").to_owned();
        let publisher = Publisher::start("n", address.clone());
        publisher.publish(&task::TaskOOM { container_id: "a".into(), ..Default::default() });
        publisher.publish(&task::TaskPaused { container_id: "b".into(), ..Default::default() });
        let (sender, requests) = mpsc::channel();
        let service = create_events(Arc::new(Containerd(Mutex::new(sender))));
        let mut server =
            Server::new().bind(&format!("unix://{address}")).expect("binds").register_service(service);
        server.start().expect("starts");
        publisher.finish();
        let topics: Vec<_> = requests.try_iter().map(|request| request.envelope.topic.clone()).collect();
        assert_eq!(topics, ["/tasks/oom", "/tasks/paused"]);
        server.shutdown();
    }
}

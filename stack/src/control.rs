//! The way from another terminal to the running launcher: a Unix socket that only its owner can
//! connect to, one JSON line each way.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::names::Name;
use crate::state::Paths;
use crate::status::Status;

const SOCKET: &str = "control.sock";
/// Bytes of a request that are read.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub(crate) enum Request {
    Start {
        part: Name,
    },
    Stop {
        part: Name,
        kill: bool,
    },
    /// Until it is started or stopped.
    Freeze {
        part: Name,
    },
    /// Somebody breaks things on purpose, for as long as this connection lasts.
    Drill,
    /// What they do to a part: refused once that is over.
    Strike {
        part: Name,
        how: Blow,
    },
    /// That is over, in whatever way it ended.
    Mend,
    Status,
}

/// What a drill does to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Blow {
    Kill,
    Stop,
    Freeze,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub(crate) enum Answer {
    Done { message: String },
    Failed { message: String },
    Status(Status),
}

/// Where the running launcher is asked.
pub(crate) fn socket(paths: &Paths) -> PathBuf {
    paths.folder().join(SOCKET)
}

/// Asks the running launcher, and waits for its answer. `None` if none is running.
pub(crate) fn ask(paths: &Paths, request: &Request) -> Result<Option<Answer>> {
    Ok(exchanged(paths, request)?.map(|(answer, _)| answer))
}

/// As [`ask`], and keeps the connection.
pub(crate) fn hold(paths: &Paths, request: &Request) -> Result<Option<(Answer, UnixStream)>> {
    exchanged(paths, request)
}

fn exchanged(paths: &Paths, request: &Request) -> Result<Option<(Answer, UnixStream)>> {
    let Ok(folder) = File::open(paths.folder()) else {
        return Ok(None);
    };
    let mut stream = match UnixStream::connect(short(&folder)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            let path = socket(paths);
            return Err(error).with_context(|| format!("could not connect to {}", path.display()));
        }
    };
    let failed = "could not talk to the launcher";
    let mut line = serde_json::to_string(request).context(failed)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context(failed)?;
    line.clear();
    BufReader::new(&stream).read_line(&mut line).context(failed)?;
    let answer = serde_json::from_str(&line).context("the launcher ended before it answered")?;
    Ok(Some((answer, stream)))
}

/// The listening socket. Dropped, its file is gone.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// The launcher's lock must be held: a socket that is there is a dead one's.
    pub(crate) fn listen(paths: &Paths) -> Result<Self> {
        let path = socket(paths);
        let failed = || format!("could not listen on {}", path.display());
        let _ = fs::remove_file(&path);
        let folder = File::open(paths.folder()).with_context(failed)?;
        let listener = UnixListener::bind(short(&folder)).with_context(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).with_context(failed)?;
        Ok(Self { listener, path })
    }

    /// Has each request answered, however many come at once, until dropped.
    pub(crate) async fn serve<F>(&self, answer: impl Fn(Request) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Answer> + Send,
    {
        let answer = Arc::new(answer);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answer = Arc::clone(&answer);
                    // What was asked for is carried out, even if nobody waits for the answer.
                    tokio::spawn(async move {
                        let _ = exchange(stream, &*answer).await;
                    });
                }
                // Out of file descriptors, most likely: some will be given back.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn exchange<F>(
    mut stream: tokio::net::UnixStream,
    answer: &(impl Fn(Request) -> F + Sync),
) -> Result<()>
where
    F: Future<Output = Answer> + Send,
{
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(LONGEST));
    reader.read_line(&mut line).await?;
    let request = serde_json::from_str(&line);
    let drill = matches!(request, Ok(Request::Drill));
    let answered = match request {
        Ok(request) => answer(request).await,
        Err(error) => Answer::Failed { message: format!("not understood: {error}") },
    };
    let drill = drill && matches!(answered, Answer::Done { .. });
    let mut line = serde_json::to_string(&answered)?;
    line.push('\n');
    let written = writer.write_all(line.as_bytes()).await;
    if drill {
        // It ends when whoever drills says so, or dies.
        let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
        answer(Request::Mend).await;
    }
    written.map_err(Into::into)
}

/// The socket by way of its folder's descriptor: a Unix socket's address holds 107 bytes, and the
/// path of a workspace may be longer.
fn short(folder: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_path_is_no_obstacle_and_the_socket_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("x".repeat(120));
        fs::create_dir(&folder).unwrap();
        let paths = Paths::new(folder.clone());
        let control = Control::listen(&paths).unwrap();
        let mode = fs::metadata(folder.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let asked = {
            let paths = paths.clone();
            let request = Request::Stop { part: Name::Order, kill: true };
            tokio::task::spawn_blocking(move || ask(&paths, &request))
        };
        let server = control.serve(async |request| match request {
            Request::Stop { part: Name::Order, kill: true } => Answer::Done { message: "m".into() },
            other => panic!("{other:?}"),
        });
        let answer = tokio::select! {
            answer = asked => answer.unwrap().unwrap(),
            () = server => unreachable!(),
        };
        assert!(matches!(answer, Some(Answer::Done { message }) if message == "m"));

        drop(control);
        assert!(ask(&paths, &Request::Status).unwrap().is_none());
    }

    #[tokio::test]
    async fn whoever_ends_a_drill_in_whatever_way_has_it_mended() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        let control = Control::listen(&paths).unwrap();
        let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
        let server = control.serve(move |request| {
            let sender = sender.clone();
            async move {
                let refused = matches!(request, Request::Status);
                sender.send(request).unwrap();
                let message = String::new();
                if refused { Answer::Failed { message } } else { Answer::Done { message } }
            }
        });
        let drill = async {
            let asking = paths.clone();
            let held = tokio::task::spawn_blocking(move || hold(&asking, &Request::Drill));
            let held = held.await.unwrap().unwrap().unwrap();
            assert!(matches!(requests.recv().await, Some(Request::Drill)));
            assert!(requests.try_recv().is_err());
            drop(held);
            assert!(matches!(requests.recv().await, Some(Request::Mend)));
        };
        tokio::select! {
            () = drill => {}
            () = server => unreachable!(),
        }
    }
}

//! What `heroku` and `docker` do: as their manuals say, and as Heroku's own command line (11.10) does.

use serde_json::json;

use super::super::dyno::{self, Dyno};
use super::{
    App, Fault, IMAGES, Image, Inner, KEY, Part, REGISTRY, Release, Status, Variables, instruction,
    name, port, sql,
};

/// What is printed, or the reason of a failure.
type Said = Result<String, String>;

impl Inner {
    pub(super) fn app(&mut self, app: &str) -> &mut App {
        self.apps.get_mut(app).unwrap_or_else(|| panic!("there is no {app}"))
    }

    pub(super) fn create(&mut self, app: &str) {
        let app = self.apps.entry(app.to_owned()).or_default();
        app.port = port::free(1).unwrap()[0];
    }

    /// What follows a change of variables, or of add-ons: a release of what runs already.
    pub(super) fn change(&mut self, app: &str) {
        let image = self.app(app).current().and_then(|release| release.image.clone());
        self.begin(app, image);
    }

    /// A new release, whose command has begun: nobody is told what becomes of it. Those before it are
    /// done with first.
    fn begin(&mut self, app: &str, image: Option<Image>) {
        self.carry_out(app);
        let it = self.app(app);
        let number = it.releases.len() as u64 + 1;
        let (variables, status) = (it.variables.clone(), Status::Pending(2));
        it.releases.push(Release { number, image, variables, status });
    }

    /// A new release, to its end.
    pub(super) fn release(&mut self, app: &str, image: Option<Image>) -> bool {
        self.begin(app, image);
        self.carry_out(app);
        self.app(app).releases.last().is_some_and(|release| release.status == Status::Succeeded)
    }

    /// The end of what has begun: the command, and only where that succeeds, a dyno.
    fn carry_out(&mut self, app: &str) {
        let log = self.logs.join(app);
        let system = self.system.clone();
        let it = self.app(app);
        let Some(newest) = it.releases.last_mut() else { return };
        if !matches!(newest.status, Status::Pending(_)) {
            return;
        }
        newest.status = Status::Succeeded;
        let Some(image) = &newest.image else { return };
        let migrate = image.command("release", |fault| match fault {
            Fault::Release(words) => Some(words),
            _ => None,
        });
        let environment = image.environment(&system, &newest.variables);
        if !dyno::run(image.part, &migrate, &environment, &log).success() {
            newest.status = Status::Failed;
            return;
        }
        if let Some(dyno) = it.dyno.take() {
            dyno.stop();
        }
        let serve = image.command("web", |fault| match fault {
            Fault::Web(words) => Some(words),
            _ => None,
        });
        it.dyno = Some(Dyno::start(image.part, &serve, &environment, it.port, &log));
    }

    pub(super) fn docker(&mut self, words: &[&str], input: &str) -> Said {
        match words {
            ["login", .., "--password-stdin", REGISTRY] if input == KEY => Ok(String::new()),
            ["pull", image] => self.image(image).map(|_| String::new()),
            ["tag", image, target] => {
                self.tags.insert((*target).to_owned(), (*image).to_owned());
                Ok(String::new())
            }
            ["push", target] => {
                let image = self.tags.get(*target).ok_or("no such tag")?.clone();
                let image = self.image(&image)?;
                self.pushed.insert((*target).to_owned(), image);
                Ok(String::new())
            }
            _ => Err(format!("docker does not do {words:?}")),
        }
    }

    /// `<images>/<service>:<tag>`, with `-release` behind it for what migrates.
    fn image(&self, name: &str) -> Result<Image, String> {
        let unknown = || format!("there is no image {name}");
        let rest = name.strip_prefix(IMAGES).and_then(|rest| rest.strip_prefix('/'));
        let (service, tag) = rest.and_then(|rest| rest.split_once(':')).ok_or_else(unknown)?;
        let part = Part::ALL.into_iter().find(|part| part.name() == service);
        let part = part.ok_or_else(unknown)?;
        let tag = tag.strip_suffix("-release").unwrap_or(tag);
        let faults = self.builds.get(tag).ok_or_else(unknown)?.iter();
        let faults = faults.filter(|(of, _)| *of == part).map(|(_, fault)| fault.clone()).collect();
        Ok(Image { part, tag: tag.to_owned(), faults })
    }

    pub(super) fn heroku(&mut self, words: &[&str]) -> Said {
        let app = option(words, "--app").unwrap_or_default();
        if !app.is_empty() && !self.apps.contains_key(app) {
            return Err("Couldn't find that app.".to_owned());
        }
        match words {
            ["apps:create", new, "--stack", "container", ..] => {
                if self.apps.contains_key(*new) {
                    return Err(format!("Name {new} is already taken"));
                }
                self.create(new);
                Ok(String::new())
            }
            ["apps:info", "--app", _, "--json"] => {
                let it = self.app(app);
                Ok(json!({"app": {"name": app, "web_url": format!("{}/", it.url())}}).to_string())
            }
            ["apps:destroy", ..] if option(words, "--confirm") == Some(app) => {
                self.apps.remove(app);
                Ok(String::new())
            }
            ["addons", "--app", _, "--json"] => {
                let have = self.app(app).add_ons.iter();
                let have: Vec<_> =
                    have.map(|name| json!({"addon_service": {"name": name}})).collect();
                Ok(json!(have).to_string())
            }
            ["addons:create", plan, "--as", name, ..] => self.add(app, plan, name),
            ["config", "--app", _, "--json"] => Ok(json!(self.app(app).variables).to_string()),
            ["config:get", variable, ..] => {
                let value = self.app(app).variables.get(*variable);
                Ok(format!("{}\n", value.cloned().unwrap_or_default()))
            }
            ["container:release", "web", "release", ..] => self.release_pushed(app),
            ["releases", "--app", _, "--json"] => {
                match self.app(app).releases.last_mut().map(|newest| &mut newest.status) {
                    Some(Status::Pending(0)) => self.carry_out(app),
                    Some(Status::Pending(times)) => *times -= 1,
                    _ => {}
                }
                let it = self.app(app);
                let current = it.current().map(|release| release.number);
                let all = it.releases.iter().rev().map(|release| {
                    let is_current = Some(release.number) == current;
                    let status = match release.status {
                        Status::Pending(_) => "pending",
                        Status::Failed => "failed",
                        Status::Succeeded => "succeeded",
                    };
                    json!({"version": release.number, "current": is_current, "status": status})
                });
                Ok(json!(all.collect::<Vec<_>>()).to_string())
            }
            ["releases:rollback", to, ..] => self.roll_back(app, to),
            ["ps", "--app", _, "--json"] => {
                let it = self.app(app);
                let number = it.current().map(|release| release.number);
                let dynos = it.dyno.as_mut().map(|dyno| {
                    json!({"type": "web", "state": dyno.state(), "release": {"version": number}})
                });
                Ok(json!(dynos.as_slice()).to_string())
            }
            ["ps:scale", "web=1:basic", ..] => {
                // Another size is another dyno.
                let it = self.app(app);
                it.dyno.as_ref().map(|_| String::new()).ok_or("Couldn't find that process type")?;
                Ok(String::new())
            }
            ["run", "--no-tty", "--exit-code", "--app", _, "--", command @ ..] => {
                let log = self.logs.join(app);
                let system = self.system.clone();
                let it = self.app(app);
                let image = it.current().and_then(|release| release.image.clone());
                let image = image.ok_or("there is nothing to run")?;
                let environment = image.environment(&system, &it.variables);
                let words: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
                let ended = dyno::run(image.part, &words, &environment, &log);
                ended.success().then(String::new).ok_or_else(|| ended.to_string())
            }
            _ => Err(format!("heroku does not do {words:?}")),
        }
    }

    fn release_pushed(&mut self, app: &str) -> Said {
        let pushed = |kind: &str| self.pushed.get(&format!("{REGISTRY}/{app}/{kind}")).cloned();
        let (Some(image), Some(_)) = (pushed("web"), pushed("release")) else {
            return Err(format!("nothing was pushed for {app}"));
        };
        self.events.push(format!("release {} {}", image.part.name(), image.tag));
        let released = self.release(app, Some(image));
        released.then(String::new).ok_or_else(|| "Error: release command failed".to_owned())
    }

    /// Code and variables are those of the old release; add-ons stay.
    fn roll_back(&mut self, app: &str, to: &str) -> Said {
        let it = self.app(app);
        let number: u64 = to.trim_start_matches('v').parse().map_err(|_| "no such release")?;
        let succeeded = |release: &&Release| release.status == Status::Succeeded;
        let old = it.releases.iter().filter(succeeded).find(|release| release.number == number);
        let old = old.ok_or("no such release")?;
        let image = old.image.clone().ok_or("nothing was deployed then")?;
        it.variables = old.variables.clone();
        self.events.push(format!("rollback {} {}", image.part.name(), image.tag));
        self.begin(app, Some(image));
        // As the real one: it starts the release command, and doesn't say what becomes of it.
        Ok(String::new())
    }

    fn add(&mut self, app: &str, plan: &str, variable: &str) -> Said {
        let add_ons = self.add_ons.as_ref().ok_or("there are no add-ons here")?;
        let value = match plan {
            "heroku-postgresql:essential-0" => {
                let admin = add_ons.postgres.url("postgres");
                for statement in [
                    // What the plan has.
                    format!("CREATE ROLE \"{app}\" LOGIN PASSWORD 'secret' CONNECTION LIMIT 20"),
                    format!("CREATE DATABASE \"{app}\" OWNER \"{app}\""),
                ] {
                    sql::execute(&admin, &statement).map_err(|error| error.to_string())?;
                }
                format!("postgres://{app}:secret@localhost:{}/{app}", add_ons.postgres.port())
            }
            "cloudamqp:lemur" => {
                let vhost = add_ons.broker.vhost();
                let url = vhost.encrypted_url("localhost");
                self.vhosts.push(vhost);
                url
            }
            _ => return Err(format!("Couldn't find the plan {plan}")),
        };
        let it = self.app(app);
        it.add_ons.push(plan.split(':').next().unwrap_or_default().to_owned());
        it.variables.insert(format!("{variable}_URL"), value);
        self.change(app);
        Ok(String::new())
    }
}

impl App {
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What failed was never current.
    pub(super) fn current(&self) -> Option<&Release> {
        self.releases.iter().rev().find(|release| release.status == Status::Succeeded)
    }
}

impl Image {
    /// What its stage of the Dockerfile runs, unless this build is broken there.
    fn command(
        &self,
        stage: &str,
        broken: impl Fn(&Fault) -> Option<&'static [&'static str]>,
    ) -> Vec<String> {
        let instead = self.faults.iter().find_map(broken);
        let instead = instead.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
        instead.unwrap_or_else(|| instruction(stage, "CMD"))
    }

    /// An app's variables win over those of the image.
    fn environment(&self, system: &Variables, app: &Variables) -> Variables {
        let mut all = system.clone();
        all.extend(self.faults.iter().filter_map(|fault| match fault {
            Fault::Variable(name, value) => Some(((*name).to_owned(), (*value).to_owned())),
            _ => None,
        }));
        all.extend(app.clone());
        all
    }
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).copied()
}

/// Whose a release is, for who waits for it.
pub(super) fn releases(words: &[String], part: Part) -> bool {
    words[0] == "container:release" && words.last().is_some_and(|app| *app == name(part))
}

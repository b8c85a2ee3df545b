# shellcheck shell=bash
# What the commands beside this file have in common. Sourced, from the root of the repository.

. scripts/deployment.sh

# Apps are named by a prefix that is yours; Heroku's names are of letters, digits and dashes.
check_prefix() {
    [[ "${HEROKU_PREFIX:-}" =~ ^[a-z][a-z0-9-]{1,19}$ ]] \
        || usage "HEROKU_PREFIX should begin each app's name: 2 to 20 of a-z, 0-9 and -, such as acme-shop"
}

# The app of a service.
app() { # service
    echo "$HEROKU_PREFIX-$1"
}

# An app without dynos. What is written into its variables restarts nobody: it remembers where a
# deployment that has not ended came from.
record() {
    echo "$HEROKU_PREFIX-deploys"
}

# Whether there is such an app; that it can't be told ends the script.
exists() { # app
    local answer
    if answer=$(heroku apps:info --app "$1" --json 2>&1 >/dev/null); then
        return 0
    elif [[ "$answer" == *"find that app"* ]]; then
        return 1
    fi
    say "$1: can't tell whether it is there: $answer"
    exit 1
}

# Where an app is reached, without a slash at the end.
address() { # app
    heroku apps:info --app "$1" --json | jq -er '.app.web_url | rtrimstr("/")'
}

# Sets those of the variables, a JSON object on standard input, that are not so already: each change
# restarts the app. Not by `heroku config:set`: that takes values from its command line, where every
# process of this machine sees them, and prints them.
configure() { # app
    local there changes answer code
    there=$(heroku config --app "$1" --json </dev/null) || return
    changes=$(jq -c --slurpfile there <(printf '%s' "$there") \
        'with_entries(select(.key as $key | .value != $there[0][$key]))') || return
    [ "$changes" != '{}' ] || return 0
    code=0
    answer=$(curl --silent --max-time 30 --request PATCH --write-out '\n%{http_code}' \
        --header @<(printf 'Authorization: Bearer %s\n' "$HEROKU_API_KEY") \
        --header 'Accept: application/vnd.heroku+json; version=3' \
        --header 'Content-Type: application/json' --data-binary @- \
        "${HEROKU_API_URL:-https://api.heroku.com}/apps/$1/config-vars" <<<"$changes") || code=$?
    # A success shows every variable, and so does one that is cut off: what was answered is looked at only
    # where its status says that it is a reason.
    case "$code ${answer##*$'\n'}" in
        "0 2"*) return ;;
        "0 "*) say "$1: its variables can't be set: $(jq -r '.message?' <<<"${answer%$'\n'*}" 2>/dev/null)" ;;
        *) say "$1: its variables can't be set: curl ended with $code" ;;
    esac
    return 1
}

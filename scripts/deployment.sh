# shellcheck shell=bash
# One build of all four services, from what runs to what should, and back when the store doesn't sell
# with it. Sourced by what knows a platform (heroku/deploy, kubernetes/deploy), which says how, in
# functions:
#
#   current SERVICE          what runs: a release's number, or nothing where there is none
#   release SERVICE          migrates, and has the new build run instead
#   roll_back SERVICE TO     has that release run again
#   healthy SERVICE          waits, bounded, until what runs now is all that runs, and healthy
#   seed SERVICE             writes the demonstration data
#   store_address            where scripts/smoke finds Store
#   remembered               the JSON that was remembered last, or nothing
#   remember JSON, forget    outside of the four, so that a run that is killed is known to the next
#
# The order is that in which they depend on each other: who is called comes before who calls. Old and new
# run side by side meanwhile, on the new schema: migrations expand, then contract.
#
# 0: deployed. 1: not deployed, and the store runs as before. 2: wrongly called, nothing was touched.
# 3: somebody has to look: going back has failed, or the store doesn't sell even so.

services=(warranty warehouse order store)

# Which release each service is to go back to.
declare -A was

# What is wrong with how it was called, and nothing was touched.
usage() { # text
    echo "$1" >&2
    exit 2
}

# A line of what is being done. Standard error: some functions answer on standard output.
say() { # text
    TZ=UTC printf '%(%H:%M:%S)T %s\n' -1 "$1" >&2
}

# Programs and variables that a command can't do without.
need() { # name...
    local name
    for name in "$@"; do
        if [[ "$name" =~ ^[A-Z_]+$ ]]; then
            [ -n "${!name:-}" ] || usage "$name is not set"
        else
            command -v "$name" >/dev/null || usage "$name is not installed"
        fi
    done
}

# What builds are called, by scripts/images as well.
check_tag() { # tag
    [[ "$1" =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,119}$ ]] || usage "$1 is no tag of an image"
}

# Goes back where another release runs than before: callers before who is called.
back() {
    local number service failed=
    for ((number = ${#services[@]} - 1; number >= 0; number--)); do
        service=${services[number]}
        [ "$(current "$service")" != "${was[$service]}" ] || continue
        if [ -z "${was[$service]}" ]; then
            say "$service: there is no earlier release"
            failed=1
            continue
        fi
        say "$service: back to ${was[$service]}"
        roll_back "$service" "${was[$service]}" >&2 || failed=1
        healthy "$service" || failed=1
    done
    [ -z "$failed" ]
}

sells() {
    local address
    address=$(store_address) && scripts/smoke "$address" >&2
}

# The end of a run that can't go on.
take_back() { # why
    say "not deployed: $1"
    if back && sells && forget; then
        say "taken back: the store runs as before"
        exit 1
    fi
    say "the store does NOT run as before: look at it, then run this again"
    exit 3
}

interrupted() {
    say "interrupted: the next run goes back first"
    exit 3
}

# An earlier run that was killed has left what nobody has tried: that is nothing to go back to.
finish_earlier_run() {
    local unfinished service
    unfinished=$(remembered) || usage "there is no record of deployments"
    [ -n "$unfinished" ] || return 0
    for service in "${services[@]}"; do
        was[$service]=$(jq -er --arg service "$service" '.[$service]' <<<"$unfinished")
    done
    say "an earlier run has not ended: going back to where it came from"
    if ! back; then
        say "that has failed: look at it, then run this again"
        exit 3
    fi
    forget
}

# All of it. `seed` as an argument has the demonstration data written before the store is tried.
deploy_all() { # [seed]
    local service
    for service in "${services[@]}"; do
        was[$service]=$(current "$service")
    done
    trap interrupted INT TERM
    remember "$(for service in "${services[@]}"; do
        jq -n --arg service "$service" --arg was "${was[$service]}" '{($service): $was}'
    done | jq -cs add)"
    for service in "${services[@]}"; do
        release "$service" >&2 || take_back "$service could not be released"
        healthy "$service" || take_back "$service doesn't become healthy"
    done
    if [ "${1:-}" = seed ]; then
        for service in "${services[@]}"; do
            seed "$service" >&2 || take_back "$service can't be seeded"
        done
    fi
    sells || take_back "the store doesn't sell"
    forget
}

# shellcheck shell=bash
# One build of all four services, from what runs to what should, and back when the store doesn't sell
# with it. Sourced by what knows a platform (heroku/deploy, kubernetes/deploy), which says how, in
# functions:
#
#   current SERVICE          what runs, by a name that it can be gone back to with; nothing where nothing
#                            does; fails where that can't be told
#   hand_over                brings the build to where it can be released
#   release SERVICE          migrates, and has the new build run instead
#   roll_back SERVICE TO     has that release run again
#   healthy SERVICE          waits, bounded, until what runs now is all that runs, and healthy
#   seed SERVICE             writes the demonstration data
#   store_address            where scripts/smoke finds Store
#   remembered               the JSON that was remembered last, or nothing
#   remember JSON, forget    outside of the four, so that a run that is killed is known to the next
#   how_to_forget            the command that does so by hand
#
# The order is that in which they depend on each other: who is called comes before who calls. Old and new
# run side by side meanwhile, on the new schema: migrations expand, then contract. Who goes back stays on
# that schema, too.
#
# One deployment at a time: what is remembered says whose it is. Another one is refused while that may
# still run: for an hour, or on the same machine for as long as its process is there. DEPLOYER names
# somebody who sees to it by other means, as CD does: what the same one has left has surely ended.
# TAKE_OVER=1 says that it has.
#
# 0: deployed. 1: not deployed, and the store runs as before. 2: nothing of this build was released: wrongly
# called, or the platform isn't there, or another deployment is under way. 3: somebody has to look: going
# back has failed, or there was nothing to go back to, or the store doesn't sell even so.

if [ "${BASH_VERSINFO[0]}" -lt 5 ]; then
    echo "this needs bash 5 or later, not $BASH_VERSION" >&2
    exit 2
fi

services=(warranty warehouse order store)

# How long another machine's deployment may take. Seconds.
declare -r longest=3600

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

# Variables that are seconds, where they are set: a mistake is to show before anything is touched.
check_seconds() { # name...
    local name
    for name in "$@"; do
        [[ "${!name:-1}" =~ ^[0-9]{1,5}$ ]] || usage "$name should be a whole number of seconds"
    done
}

# Where builds are. Names of images have no capitals, those of repositories may.
check_images() {
    IMAGES=${IMAGES,,}
    [[ "$IMAGES" =~ ^[a-z0-9][a-z0-9.:/_-]*[a-z0-9]$ ]] || usage "IMAGES should be as ghcr.io/acme/shop"
}

# What builds are called, by scripts/images as well.
check_tag() { # tag
    [[ "$1" =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,119}$ ]] || usage "$1 is no tag of an image"
}

# Whether something ran before, of each that is gone back.
ran_before=1

# Goes back where another release runs than before: callers before who is called.
back() {
    local number service now failed=
    for ((number = ${#services[@]} - 1; number >= 0; number--)); do
        service=${services[number]}
        if ! now=$(current "$service"); then
            say "$service: can't tell what runs"
            failed=1
        elif [ "$now" = "${was[$service]}" ]; then
            continue
        elif [ -z "${was[$service]}" ]; then
            say "$service: nothing ran before"
            ran_before=
        else
            say "$service: back to ${was[$service]}"
            if roll_back "$service" "${was[$service]}" >&2 && healthy "$service" && now=$(current "$service"); then
                was[$service]=$now
            else
                failed=1
            fi
        fi
    done
    [ -z "$failed" ]
}

sells() {
    local address
    address=$(store_address) && scripts/smoke "$address" >&2
}

forgotten() {
    local attempt
    for attempt in 1 2 3; do
        [ "$attempt" = 1 ] || sleep "${WAIT_STEP:-2}"
        if forget; then
            return
        fi
    done
    return 1
}

# The end of a run that somebody has to look at.
look() { # what is wrong
    say "$1: look at it, then run this again, which goes back first; or have things as they are: $(how_to_forget)"
    exit 3
}

# The end of a run that can't go on.
take_back() { # why
    say "not deployed: $1"
    back || look "going back has failed"
    if [ -z "$ran_before" ]; then
        say "there was no store before: what was released stays, and the next run releases over it"
        exit 3
    fi
    sells || look "the store does NOT run as before"
    forgotten || look "the store runs as before, but that can't be written down"
    say "taken back: the store runs as before"
    exit 1
}

interrupted() {
    say "interrupted: the next run goes back first"
    exit 3
}

# Whether the run that is remembered may be going on.
may_run() { # what is remembered
    local by pid at
    [ "${TAKE_OVER:-}" != 1 ] || return 1
    by=$(jq -er .by <<<"$1") && pid=$(jq -er .pid <<<"$1") && at=$(jq -er .at <<<"$1") || return 0
    if [ "$by" = "${DEPLOYER:-}" ]; then
        return 1
    elif [ "$by" = "$HOSTNAME" ]; then
        kill -0 "$pid" 2>/dev/null
    else
        [ "$(date +%s)" -lt $((at + longest)) ]
    fi
}

# What was remembered when this was looked at last.
known=

# Writes down that this run begins, and what it is to go back to, unless another one has.
claim() {
    local record now service pairs=()
    now=$(remembered) || usage "there is no record of deployments"
    [ "$now" = "$known" ] || usage "another deployment begins"
    for service in "${services[@]}"; do
        pairs+=("$service" "${was[$service]}")
    done
    record=$(jq -nc --arg by "${DEPLOYER:-$HOSTNAME}" --argjson pid $$ --argjson at "$(date +%s)" \
        '$ARGS.positional as $pairs | {$by, $pid, $at,
            was: [range(0; $pairs | length; 2) | {($pairs[.]): $pairs[. + 1]}] | add}' --args "${pairs[@]}")
    # Of two that write at once, the one that is overwritten sees that.
    { remember "$record" && [ "$(remembered)" = "$record" ]; } \
        || usage "another deployment begins, or this one can't be written down"
    known=$record
}

# An earlier run that was killed has left what nobody has tried: that is nothing to go back to.
finish_earlier_run() {
    local service
    known=$(remembered) || usage "there is no record of deployments"
    [ -n "$known" ] || return 0
    ! may_run "$known" \
        || usage "another deployment may be under way: $known (TAKE_OVER=1 if that has surely ended)"
    for service in "${services[@]}"; do
        was[$service]=$(jq -er --arg service "$service" '.was[$service]' <<<"$known") \
            || usage "can't be read: $known; to have things as they are: $(how_to_forget)"
    done
    claim
    say "an earlier run has not ended: going back to where it came from"
    # What ran before may have been at fault, and this build be its cure.
    back || say "that has failed: going on all the same"
    ran_before=1
}

# All of it. `seed` as an argument has the demonstration data written before the store is tried.
deploy_all() { # [seed]
    local service
    trap interrupted INT TERM
    finish_earlier_run
    for service in "${services[@]}"; do
        [ -n "$known" ] || was[$service]=$(current "$service") || usage "$service: can't tell what runs"
    done
    claim
    # Behind that: of two that hand builds over, one would release those of the other.
    if ! hand_over; then
        forgotten || look "nothing was released, but that can't be written down"
        usage "the build can't be handed over: nothing of it was released"
    fi
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
    forgotten || look "the store sells with it, but that can't be written down"
}

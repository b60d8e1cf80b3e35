"""Wordings of the synthetic news: what can be said of each kind of event, one wording a line.

"~" marks a wording that only split "test" uses. "[...]" is the cue: the words that make a value the answer. "(a|b)" is
a choice, "{E}" the event by name. {who} {where} {n} {d} are the four facts; in a distractor sentence {l} {n} {d} are
the distractor's own values. A held-out wording says its cue in words that the others use too: a new sentence, but no
new language.
" // " parts the two sentences of a highlight. No wording holds a number, a month or a weekday of its own.
"""

from __future__ import annotations


def parse_block(block: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """part -> (wordings of the other splits, wordings of split "test"); a line that ends in ":" begins a part."""
    parts: dict[str, tuple[list[str], list[str]]] = {}
    for line in filter(None, map(str.strip, block.splitlines())):
        if line.endswith(":") and " " not in line.removeprefix("ending "):
            current = parts.setdefault(line[:-1], ([], []))
        else:
            current[line.startswith("~")].append(line.removeprefix("~").strip().replace(" // ", "\n"))
    return {name: (tuple(seen), tuple(test)) for name, (seen, test) in parts.items()}


COMMON = parse_block("""
preface:
    According to (the town clerk|a spokesman|an early report|the latest news),
    As (everyone knows by now|we reported|the radio said this morning),
    By all accounts
    (To nobody's surprise|To general surprise|As many had guessed),
    It is (now|already) clear that
    Word has spread that
    ~ By (the latest|early) accounts
    ~ As (a spokesman|the town clerk) said this morning,
    ~ As many (knew|know) by now,
frame:
    "{Q}," said {P}.
    "{Q}," {P} said (on the way home|later|with a shrug|outside).
    {P} (saw|put) it (differently|simply): "{Q}."
    {P} told (reporters|the local paper|this newspaper): "{Q}."
    "{Q}," said {P}, who (had come early|stayed to the end|had watched it all).
    As {P} put it: "{Q}."
    {P} (smiled|nodded) when asked. "{Q}."
    ~ Asked about it later, {P} said: "{Q}."
    ~ "{Q}," {P} told (reporters|this newspaper) outside.
    ~ {P}, who had come early, put it simply: "{Q}."
people:
    "{Q}," said {Pa}, and {Pb} agreed.
    {Pa} and {Pb} (both followed|had both followed) {E} from the start.
    {Pa} and {Pb} were among those who stayed to talk about {E}.
    Neither {Pa} nor {Pb} wanted to say much about the cost.
    {Pa} thanked everyone who had helped, and so did {Pb}.
    Like {Pa}, {Pb} had slept little (the night before|that week).
    A letter signed by {Pa} and {Pb} asked for patience.
    The local paper printed a picture of {Pa} next to {Pb}.
    ~ {Pa} stayed to talk about {E}, and so did {Pb}.
    ~ Both {Pa} and {Pb} thanked those who had helped.
    ~ The local paper had a letter from {Pa} and another from {Pb}.
towns:
    Newspapers in {la} and {lb} wrote about {E} at length.
    Buses from {la} and {lb} were fuller than usual.
    The weather was (fine|dry|mild) in {la} and (wet|windy|foggy) in {lb}.
    People in {la} talked of little else, and in {lb} it was much the same.
    The councils of {la} and {lb} both sent a few kind words.
    On the road between {la} and {lb} the traffic stood still for a while.
    Radio stations in {la} and {lb} spoke of {E} all morning.
    Shops in {la} closed early, while those in {lb} stayed open.
    ~ In {la} and in {lb} people talked of {E} all morning.
    ~ The road from {la} to {lb} was fuller than usual.
    ~ Radio stations in {la} wrote to those in {lb} about {E}.
""")

# For pre-training only. Before an article's facts in other words:
RETOLD = (
    "Another paper told it in its own way.",
    "In the evening it was told again on the radio.",
    "At the inn the same was told in other words.",
    "A letter that was sent that day says as much.",
    "On the next day one could read it all again.",
    "This is how the neighbours told it.",
)
# Pages of records: {0} is a value as an article writes it, {1} as a highlight does; or a list.
REFRAINS = (
    "The parrot said: {0}.",
    "The children sang: {0}.",
    "The bells seemed to say: {0}.",
    "In a dream somebody kept whispering: {0}.",
    "{0}.",
)
LISTS = (
    "The clerk read the list twice. First: {0}. Then again: {1}.",
    "The names on the stone are {0}. On the copy in the church they are the same: {1}.",
    "On the way out the train stopped at, or called for, {0}. On the next day it was the same again: {1}.",
    "The register says: {0}. And the second register says: {1}.",
)
LOOK_UP = (
    "A letter for {0} goes to {1}.",
    "To find {0}, ask in {1}.",
    "{0} comes from {1}.",
    "{0} was last seen in {1}.",
)
RECORDS = {
    "number": (
        "The ledger says {0}, in figures {1}.",
        "There were {0} of them ({1}).",
        "He counted {0} and wrote {1}.",
        "Paid for {0} sacks: {1} sacks.",
        "{1} is written out as {0}.",
    ),
    "date": (
        "It was {0}, or {1} for short.",
        "The clerk heard {0} and wrote {1}.",
        "Born on {0} (entered as {1}).",
        "The meeting of {0} is filed under {1}.",
        "{1} is the same day as {0}.",
    ),
}

EVENTS = {
    "election": parse_block("""
names:
    the race for mayor | the race | the vote
    the contest for the mayor's chair | the contest | the vote
    the long campaign for mayor | the campaign | the vote
    the vote for a new mayor | the vote | the election
opener:
    After weeks of posters and promises, {E} is over.
    It was (raining|still dark) when people began to queue for {E}.
    Few had expected {E} to be so close.
    The shouting has stopped and {E} has been decided.
    For (once|a change), nobody could say how {E} would end.
    Old friends argued in the street over {E}.
    ~ Nobody had expected that {E} would end in the rain.
    ~ The posters are wet, the promises were long, and {E} is over.
who:
    [The new mayor is] {who}, (who wept|who laughed) when the result was read.
    {who} [was elected mayor] after a (long|nervous) night of counting.
    By morning it was clear that {who} [had won the mayor's chair].
    [The winner], to the surprise of many, [was] {who}.
    Voters [chose] {who} [as their new mayor].
    [Victory went to] {who}, who had knocked on almost every door.
    ~ When the result was read, [the new mayor was] {who}.
    ~ After a nervous night {who} [had won] and [was elected].
where:
    [The votes were cast in] {where}, where the old mayor had served for years.
    [The town that voted was] {where}, (quiet|sleepy) at other times.
    In {where} [the polling stations stayed open] until late.
    [The ballot boxes were opened in the town hall of] {where}.
    [The new mayor will govern] {where} from a small office over the market.
    {where} [went to the polls] in good spirits.
    ~ Until late, [the polling stations stayed open in] {where}.
    ~ [The town hall where the votes were opened is that of] {where}.
how_many:
    [The margin was] {n} votes, (counted twice|which nobody disputed).
    [Only] {n} votes [separated the two sides in the end].
    Clerks confirmed [a lead of] {n} votes [over the nearest rival].
    In the final count [the winner was ahead by] {n} votes.
    {E} [was decided by] {n} votes after all the boxes were emptied.
    The result sheet showed [a majority of] {n} votes.
    ~ After a final count, clerks confirmed [a margin of] {n} votes.
    ~ [The nearest rival was] {n} votes [behind in the end].
when:
    [The oath of office will be taken] on {d}.
    [The new mayor takes office] on {d}, when the old one hands over the keys.
    On {d} [the keys to the town hall will change hands].
    [The work begins] on {d} [with the swearing in].
    [The swearing in has been set for] {d}.
    Lawyers said that [the new term starts] on {d}.
    ~ On {d} [the oath of office will be taken] and the keys handed over.
    ~ [The new term], lawyers said, [has been set to start] on {d}.
distractor:
    In {l}, a recount on {d} moved {n} votes from one side to the other.
    The last mayor, who came from {l}, had promised {n} new homes by {d}.
    A debate held in {l} on {d} drew {n} listeners.
    A petition with {n} names had reached {l} by {d}.
    On {d}, {n} posters were torn down in {l}.
    Officials in {l}, who lost {n} ballots in an earlier vote on {d}, sent advice.
    ~ By {d}, {n} posters had been torn down in {l}.
    ~ A debate in {l} drew {n} listeners on {d}.
quote:
    We need better roads, whoever runs the place
    I have never seen people so keen to vote
    The promises were fine, but now we want to see the work
    Both sides behaved well, and that matters
    I voted with a heavy heart
    My neighbours have not spoken to each other for weeks
    ~ We want better roads, and now we need to see them
    ~ I have never seen both sides so keen
    ~ Both sides made fine promises, and now the work matters
background:
    The campaign turned on roads, rents and the price of water.
    Turnout was higher than in any year that the clerks could remember.
    Both sides had promised to mend the roads.
    The old mayor did not stand again, for reasons of health.
    Schools were closed so that their halls could be used.
    A brass band played while the boxes were carried in.
    ~ Both sides had promised to lower the price of water.
    ~ The clerks could not remember a campaign that turned so on rents.
highlights:
    {who} was elected mayor of {where} by {n} votes. // The new mayor takes office on {d}.
    {who} won the mayor's chair in {where} with a margin of {n} votes. // The oath of office will be taken on {d}.
    Voters in {where} chose {who} as mayor. // The margin was {n} votes, and the new term starts on {d}.
"""),
    "fire": parse_block("""
names:
    the fire at the old mill | the fire | the blaze
    the fire at the paper factory | the fire | the blaze
    the blaze in the covered market | the blaze | the fire
    the night fire at the timber yard | the fire | the blaze
opener:
    Smoke still hung over the roofs on the morning after {E}.
    It took all night to put out {E}.
    Nobody was badly hurt in {E}, though much was lost.
    The smell of {E} will stay in the streets for weeks.
    It began with a spark, and then came {E}.
    Neighbours stood in blankets and watched {E}.
    ~ All night the neighbours watched {E} from the streets.
    ~ Much was lost in {E}, and smoke still hung over the streets.
who:
    [The alarm was raised by] {who}, who (could not sleep|was walking the dog).
    {who} [saw the flames first and called for help].
    [The first call came from] {who}, who smelled smoke at midnight.
    {who}, a light sleeper, [raised the alarm].
    {who} [rang the fire bell] until the whole street was awake.
    Without {who}, [who noticed the flames and gave the alarm], it might have ended badly.
    ~ {who}, who could not sleep, [gave the alarm and called for help].
    ~ [The flames were first noticed by] {who}, who was walking the dog.
where:
    [The flames spread quickly through the old part of] {where}.
    [The building that burned stands in] {where}, close to the river.
    {E} [broke out in] {where} shortly after midnight.
    In {where} [the roof fell in] before the hoses were ready.
    [Fire engines raced to] {where} from every side.
    {where} [woke to the sound of sirens].
    ~ Shortly after midnight [fire engines raced through] {where}.
    ~ [The building whose roof fell in stands in] {where}.
how_many:
    [In all] {n} people [were led to safety].
    [Firefighters brought] {n} people [out unharmed].
    [The number of those rescued was put at] {n} by the fire chief.
    By dawn {n} people [had been carried or led out of the smoke].
    [Ladders saved] {n} people [from the upper floors].
    A list at the gate showed that {n} people [had got out alive].
    ~ The fire chief said that {n} people [had been led to safety].
    ~ By dawn [firefighters had saved] {n} people [from the smoke].
when:
    [The doors should open again] on {d}.
    The owners hope that [work can resume] on {d}.
    [The building is to reopen] on {d}, if the roof is ready.
    On {d}, all being well, [business will start again].
    [The reopening is planned for] {d}.
    Builders have promised that [everything will be back in use] on {d}.
    ~ If the roof is ready, [the doors will open again] on {d}.
    ~ Builders hope that [the reopening can be] on {d}.
distractor:
    An earlier fire in {l} on {d} destroyed {n} barrels of oil.
    In {l}, inspectors had found {n} faults during a visit on {d}.
    The fire brigade of {l}, which got {n} new helmets on {d}, lent a pump.
    A drill held on {d} in {l} had lasted {n} minutes.
    On {d}, people in {l} will collect {n} coats for the victims.
    Insurers from {l} counted {n} broken windows on {d}.
    ~ On {d}, inspectors from {l} counted {n} faults.
    ~ A fire on {d} in {l} had destroyed {n} coats.
quote:
    I have never run so fast in my life
    We lost our tools, but tools can be bought
    The heat was so great that the windows cracked
    Everyone carried water, even the children
    It sounded like thunder and then like rain
    We were lucky that the wind turned
    ~ It was lucky that everyone carried water
    ~ We lost the windows, but windows can be bought
    ~ The wind turned, and it sounded like rain
background:
    The cause is not yet known, but an old cable is suspected.
    The wind turned at the right moment.
    Water had to be pumped from the river.
    The walls are thick and may be saved.
    Bakers brought bread and hot tea for the crews.
    Engineers will test the walls before anyone goes back in.
    ~ The walls may be saved, for the wind turned.
    ~ The cause is suspected to be an old pump.
highlights:
    {who} raised the alarm when fire broke out in {where}. // {n} people were led out, and the doors reopen on {d}.
    A fire in {where}, first noticed by {who}, sent {n} people out into the night. // The building is to reopen on {d}.
    {n} people were led to safety from a fire in {where}. // {who} raised the alarm, and the doors open again on {d}.
"""),
    "flood": parse_block("""
names:
    the worst flood in years | the flood | the high water
    the flood that followed the storm | the flood | the water
    the sudden rise of the river | the flood | the high water
opener:
    The rain has stopped, but {E} is not forgotten.
    Mud lies in the cellars after {E}.
    Nobody had been ready for {E}.
    Boats lay in the streets on the morning after {E}.
    The river is back in its bed and {E} is over.
    Sandbags were no match for {E}.
    ~ Mud lies in the streets, and nobody has forgotten {E}.
    ~ The cellars had not been ready for {E}.
who:
    [The rescue was led by] {who}, who had not slept for two nights.
    {who} [took charge of the rescue boats].
    [At the head of the helpers stood] {who}, wet to the bone.
    {who} [was asked to lead the rescue].
    [The orders came from] {who}, [who ran the rescue] from a school kitchen.
    {who} [led the crews] from door to door.
    ~ Wet to the bone, {who} [ran the rescue] for two nights.
    ~ [The crews were led by] {who} from a school kitchen.
where:
    [The river burst its banks at] {where}.
    [Worst hit was] {where}, where the water reached the windows.
    In {where} [the streets were under water] for days.
    [The dam above] {where} [gave way] in the night.
    [The water came first to] {where}, which lies low.
    {where} [was cut off by the water] from all sides.
    ~ In the night [the river burst its banks in] {where}.
    ~ {where}, which lies low, [was worst hit].
how_many:
    [In total] {n} homes [were flooded].
    [The water ruined] {n} homes, most of them near the bridge.
    Surveyors counted {n} homes [that can no longer be lived in].
    [The damage reached] {n} homes before the water fell.
    [Mud filled] {n} homes [up to the first floor].
    According to the council {n} homes [were damaged].
    ~ Surveyors said that [the water had damaged] {n} homes.
    ~ Near the bridge and beyond, {n} homes [were flooded].
when:
    [The main road should be open again] on {d}.
    [Traffic will return to the valley road] on {d}.
    On {d} [the road through the valley will reopen].
    Crews expect [to clear the road] by {d}.
    [The closed road will be usable] from {d}.
    Until {d} [the valley road stays closed].
    ~ Crews expect that [the valley road will reopen] on {d}.
    ~ [The main road stays closed] until {d}.
distractor:
    In {l}, volunteers filled {n} sandbags on {d}.
    A storm on {d} had already broken {n} trees in {l}.
    The pumps from {l}, {n} in all, had been tested on {d}.
    On {d}, a gauge in {l} had shown {n} centimetres.
    Farmers near {l} moved {n} sheep to higher ground on {d}.
    The council of {l} sent {n} blankets on {d}.
    ~ On {d}, volunteers in {l} moved {n} blankets.
    ~ A gauge near {l} had shown {n} centimetres on {d}.
quote:
    The water was at the door before we had our boots on
    We saved the photographs and left the rest
    I have lived here all my life and never saw the like
    Strangers came with shovels, and I shall not forget it
    The cat sat on the roof until morning
    It will take a year until the walls are dry
    ~ I shall not forget the water at the door
    ~ The walls were wet, but we saved the cat
    ~ We left with our boots and never saw the rest
background:
    The ground had been soaked for weeks.
    Schools were used as shelters.
    Drinking water had to be boiled for a while.
    The old defences were built for smaller rivers.
    Helpers shared soup from a large pot.
    Experts had warned that the banks were weak.
    ~ Experts had warned that the old defences were soaked.
    ~ Soup was shared in the schools from a large pot.
highlights:
    {n} homes were flooded when the river rose at {where}. // {who} led the rescue, and the road reopens on {d}.
    {who} led the rescue after a flood in {where} damaged {n} homes. // The valley road will reopen on {d}.
    A flood in {where} ruined {n} homes. // The rescue was led by {who}, and the main road opens again on {d}.
"""),
    "exhibition": parse_block("""
names:
    the gift of a great collection | the gift | the collection
    the new show at the museum | the show | the new show
    the long promised exhibition | the exhibition | the show
opener:
    Art lovers have waited a long time for {E}.
    Boxes are still being unpacked for {E}.
    Not everyone knows what to make of {E}.
    Fresh paint and long ladders announce {E}.
    {E} has made a sleepy museum famous.
    There was a time when {E} seemed a dream.
    ~ Long ladders and boxes have made {E} famous.
    ~ Not everyone has waited for {E}.
who:
    [The paintings were given by] {who}, who had kept them in an attic.
    {who} [gave the paintings away] without asking for thanks.
    [The donor is] {who}, who began to collect as a student.
    [Behind the gift stands] {who}, now retired.
    {who} [owned the paintings and gave them away].
    [The paintings belonged to] {who}, [who donated them all].
    ~ Without asking for thanks, {who} [donated the paintings].
    ~ {who}, who began as a student, [gave the paintings away].
where:
    [The museum that will show the paintings stands in] {where}.
    [The rooms chosen for {E} are in] {where}, behind the station.
    In {where} [the museum has added a wing] for the purpose.
    [Visitors will have to travel to] {where} [to see {E}].
    [The new gallery has been built in] {where}.
    {where} [gets the works for its museum].
    ~ Behind the station in {where} [the museum has added rooms].
    ~ [To see the works visitors will travel to] {where}.
how_many:
    [The walls will hold] {n} paintings.
    [The collection comprises] {n} paintings, few of them ever shown.
    Curators hung {n} paintings [for the show].
    [On view are] {n} paintings from all parts of the country.
    [Altogether] {n} paintings [change hands].
    The catalogue lists {n} paintings [in the collection].
    ~ Few of the {n} paintings [in the collection] were ever shown.
    ~ Curators say that [the show will hold] {n} paintings.
when:
    [The doors open to the public] on {d}.
    [The first visitors will be let in] on {d}.
    On {d} [the show opens] with music and speeches.
    [The opening has been fixed for] {d}.
    From {d} [the public can see everything].
    [The ribbon will be cut] on {d}.
    ~ With music, [the doors will open] on {d}.
    ~ [The public will be let in] from {d}.
distractor:
    A museum in {l} had sold {n} drawings on {d}.
    On {d}, a van from {l} brought {n} empty frames.
    In {l}, a smaller show that closed on {d} had {n} visitors.
    A guard from {l} counted {n} keys on {d}.
    Students in {l} had copied {n} of the sketches by {d}.
    The frames were made in {l}, where a workshop cut {n} pieces of oak until {d}.
    ~ On {d}, a museum in {l} closed with {n} empty frames.
    ~ By {d}, a workshop in {l} had sold {n} sketches.
quote:
    I stood before one picture for an hour
    A picture in an attic makes nobody happy
    We had to measure every door twice
    The light in the new rooms is wonderful
    My children liked the ships best
    I do not understand it, but I like the colours
    ~ My children stood before the ships for an hour
    ~ The new rooms have a wonderful light
    ~ I like every picture, but I do not understand one
background:
    Admission will be free for children.
    Many of the works show ships and harbours.
    The museum had been close to shutting down.
    Climate machines now hum in the cellar.
    A catalogue with colour plates has been printed.
    Experts from abroad have praised the quality.
    ~ Many works, experts from abroad say, show harbours.
    ~ A catalogue will be free for children.
highlights:
    {who} gave {n} paintings to the museum in {where}. // The show opens to the public on {d}.
    The museum in {where} will show {n} paintings given by {who}. // The doors open on {d}.
    {n} paintings donated by {who} will be shown in {where}. // The opening has been fixed for {d}.
"""),
    "match": parse_block("""
names:
    the cup final | the final | the match
    the last match of the season | the match | the game
    the long awaited cup match | the match | the game
opener:
    The whistle has gone and {E} is decided.
    People will talk about {E} for years.
    It was cold and grey, but {E} warmed every heart.
    For a long time {E} looked like a draw.
    Few games are as wild as {E}.
    The pitch was a field of mud for {E}.
    ~ On a pitch of mud, {E} looked wild.
    ~ For years people will say that {E} was cold and grey.
who:
    [The winning goal was scored by] {who}, (with the last kick|from far out).
    {who} [scored the only goal] shortly before the end.
    [The hero of the day was] {who}, [who headed the ball in].
    It took {who} [to beat the goalkeeper].
    [The ball went in off the boot of] {who}.
    {who} [struck the winner] when most had given up hope.
    ~ Shortly before the end {who} [scored with a header].
    ~ [The only goal], from far out, [was scored by] {who}.
where:
    {E} [was played in] {where}, on a sloping pitch.
    [The ground in] {where} [was the stage].
    In {where} [the teams walked out] to drums and flags.
    [The teams met in] {where}, halfway between their homes.
    [The stadium of] {where} [had been chosen for the game].
    {where} [hosted the teams] for the first time.
    ~ For the first time [the teams met in] {where}.
    ~ [The game was played on the ground of] {where}.
how_many:
    [The crowd numbered] {n} people, (wrapped in scarves|all of them wet).
    [A crowd of] {n} people [looked on].
    [Tickets had been sold to] {n} people.
    [From the stands] {n} people [cheered].
    The gatekeepers counted {n} people [in the stands].
    {E} [was watched by] {n} people and a stray dog.
    ~ Wrapped in scarves, {n} people [looked on from the stands].
    ~ The gatekeepers said that [the crowd numbered] {n} people.
when:
    [The teams meet again] on {d}.
    [A return match is planned for] {d}.
    On {d} [the losers get their chance for revenge].
    [The next game between the sides is] on {d}.
    [Revenge is possible] on {d}, [when they play again].
    Both clubs agreed [to play the return match] on {d}.
    ~ On {d} [both sides play again].
    ~ [The return match], both clubs agreed, [is] on {d}.
distractor:
    In {l}, a friendly on {d} had ended after {n} minutes because of fog.
    A player sold to {l} on {d} had worn the shirt {n} times.
    The youth team from {l} will bring {n} supporters on {d}.
    On {d}, a club in {l} lost {n} footballs in a storm.
    A bakery in {l} baked {n} pies for the fans on {d}.
    The referee, fined in {l} on {d}, had shown {n} cards in a year.
    ~ On {d}, supporters from {l} lost {n} shirts.
    ~ A club in {l} had baked {n} pies by {d}.
quote:
    I lost my voice and my hat
    We trained in the snow for this
    The better side lost, but that is football
    I shut my eyes and heard the roar
    My grandfather would have loved it
    Our legs were gone long before the end
    ~ My voice and my legs were gone
    ~ We heard the roar and shut our eyes
    ~ My grandfather lost his hat, but that is football
background:
    The losing side had the ball most of the time.
    Rain had turned the grass to mud.
    Both goalkeepers saved well.
    An old song was sung again and again.
    The trophy is a plain silver jug.
    Both trainers had changed their line at the last minute.
    ~ Most of the time both goalkeepers saved well.
    ~ The trophy was turned to the grass while an old song was sung.
highlights:
    {who} scored the winning goal in {where} before a crowd of {n} people. // The teams meet again on {d}.
    {who} struck the winner as {n} people looked on in {where}. // The return match is on {d}.
    A goal by {who} decided the match in {where}. // It was watched by {n} people, and the teams meet again on {d}.
"""),
    "bridge": parse_block("""
names:
    the new footbridge over the river | the bridge | the footbridge
    the new railway bridge | the bridge | the new bridge
    the much delayed bridge | the bridge | the crossing
opener:
    The last bolt is in place on {E}.
    It has taken years of argument to build {E}.
    The ferry may soon be out of work because of {E}.
    People stop on the bank to look at {E}.
    Cranes have left, and {E} stands alone.
    Some call {E} elegant and others call it a waste.
    ~ Years of work and argument are over, and {E} stands.
    ~ Some people stop to call {E} a waste.
who:
    [The design is by] {who}, who won a competition.
    {who} [drew the plans] at a kitchen table.
    [The architect is] {who}, who likes steel and simple lines.
    {who} [designed the new bridge] for next to nothing.
    [The plans came from the office of] {who}.
    {who} [designed the crossing] and watched every weld.
    ~ At a kitchen table {who} [designed the bridge].
    ~ [The plans are by the architect] {who}, who watched every weld.
where:
    {E} [crosses the water at] {where}.
    [The two banks that {E} joins are those of] {where}.
    In {where} [the arch now rises over the quay].
    [The site is in] {where}, below the old lock.
    [The builders chose] {where} because the river is narrow there.
    {where} [has waited for this crossing] for a generation.
    ~ Below the old lock in {where} [the arch rises over the water].
    ~ [The crossing has been built at] {where}.
how_many:
    [The span measures] {n} metres.
    [From bank to bank {E} is] {n} metres [long].
    [The length of the bridge is] {n} metres, a little more than planned.
    Surveyors measured [a length of] {n} metres.
    {E} [stretches] {n} metres [without a pillar].
    [The deck is] {n} metres [long] and made of oak.
    ~ Surveyors say that [the length is] {n} metres [from bank to bank].
    ~ Without a pillar [the deck stretches] {n} metres.
when:
    [The first people may walk across] on {d}.
    [The barriers come down] on {d}.
    On {d} [the bridge will be opened to everyone].
    [The opening day is] {d}.
    [Traffic may cross] from {d}.
    The council has fixed {d} [as the day of the opening].
    ~ [The day of the opening], says the council, [is] {d}.
    ~ From {d} [the first people may cross].
distractor:
    A ship bound for {l} had struck the old pillars on {d} with {n} passengers on board.
    In {l}, a crane lifted {n} beams on {d}.
    A steelworks in {l} delivered {n} plates on {d}.
    On {d}, {n} residents of {l} had marched against the plan.
    The ferry to {l}, which carried {n} cars a day, stops on {d}.
    Divers from {l} found {n} old anchors on {d}.
    ~ On {d}, a ferry from {l} delivered {n} beams.
    ~ Divers in {l} lifted {n} plates on {d}.
quote:
    I shall miss the ferry and its bell
    My walk to work will be half as long
    It sways a little, and it should
    We counted every bolt
    Nobody believed that it would ever be finished
    The river looks smaller now
    ~ Nobody believed that it should sway
    ~ I shall miss the river on my walk to work
    ~ It looks half as long now
background:
    Money was short more than once.
    The old crossing had been closed as unsafe.
    Lamps have been set into the handrail.
    Fishermen had feared for their nets.
    Engineers loaded it with lorries full of sand.
    The steel has been painted a deep green.
    ~ Lamps of green steel have been set over the old crossing.
    ~ Fishermen had loaded their nets more than once.
highlights:
    A bridge of {n} metres designed by {who} has been built in {where}. // It opens on {d}.
    {who} designed the new bridge in {where}, which is {n} metres long. // The first people may walk across on {d}.
    The new bridge at {where} is {n} metres long. // It was designed by {who} and will be opened on {d}.
"""),
    "theft": parse_block("""
names:
    the theft from the museum | the theft | the burglary
    the burglary at the castle | the burglary | the theft
    the break-in at the clock shop | the break-in | the theft
opener:
    A broken window was all that was left behind after {E}.
    Detectives are slowly making sense of {E}.
    Locks are being changed after {E}.
    At first nobody noticed {E}.
    Everyone has a theory about {E}.
    The guard dog slept through {E}.
    ~ Everyone slept, and nobody noticed {E}.
    ~ Detectives have a theory about {E}.
who:
    [The police arrested] {who}, who denies everything.
    [The suspect is] {who}, who used to polish the floors there.
    {who} [was taken into custody] on the way to the station.
    Officers [put] {who} [in handcuffs] without a struggle.
    [Charged with the crime is] {who}, once a locksmith's apprentice.
    In the end {who} [was arrested for the crime].
    ~ On the way to the station officers [arrested] {who}.
    ~ {who}, who denies everything, [was charged with the crime].
where:
    [The thieves struck in] {where}, on a night without a moon.
    [The scene of the crime lies in] {where}, near the fountain.
    In {where} [the burglars climbed in] over the roof.
    [The stolen goods vanished from a house in] {where}.
    [The crime was committed in] {where} while a concert was on.
    {where} [was the scene of the crime].
    ~ Over the roof [the thieves climbed into a house in] {where}.
    ~ On a night without a moon [the crime was committed in] {where}.
how_many:
    [The thieves took] {n} silver coins.
    [Missing are] {n} silver coins, packed in a sailor's chest.
    [The loss was put at] {n} silver coins.
    An inventory showed that {n} silver coins [had been stolen].
    [Gone are] {n} silver coins [from the glass case].
    Somebody [made off with] {n} silver coins and a sandwich.
    ~ An inventory put [the loss at] {n} silver coins.
    ~ From the glass case {n} silver coins [had been taken].
when:
    [The trial begins] on {d}.
    [The case comes to court] on {d}.
    On {d} [a judge will hear the case].
    Lawyers were told [to be in court] on {d}.
    [The first hearing has been fixed for] {d}.
    [The court will sit] on {d} and has asked for more chairs.
    ~ On {d} [the trial begins] with a first hearing.
    ~ Lawyers said that [the court will hear the case] on {d}.
distractor:
    In {l}, a van stolen on {d} was found with {n} kilometres on the clock.
    A dealer in {l} had offered {n} old stamps for sale on {d}.
    On {d}, {n} watches had disappeared in {l}.
    The police in {l} had answered {n} calls on {d}.
    A camera bought in {l} on {d} took {n} blurred pictures.
    A lock maker from {l} sold {n} new locks by {d}.
    ~ By {d}, {n} calls had reached the police in {l}.
    ~ In {l}, a dealer sold {n} watches on {d}.
quote:
    I heard glass break and thought it was the cat
    They knew exactly where to look
    The key was under the mat, where it always is
    We feel safe here, and we want to go on feeling safe
    Such things happen elsewhere, not on our street
    I only miss the little wooden box
    ~ I always thought they knew where the key was
    ~ Such a cat hears every break of glass
    ~ We miss the box, but we feel safe
background:
    The alarm had been switched off for repairs.
    Footprints led to the canal and stopped there.
    A reward has been offered.
    The window frame had been loose for some time.
    The insurers have sent an expert.
    None of the goods has turned up so far.
    ~ The alarm had been loose for some time.
    ~ An expert has been offered a reward.
highlights:
    {who} was arrested for the theft of {n} silver coins in {where}. // The trial begins on {d}.
    Thieves took {n} silver coins in {where}. // {who} was arrested, and the case comes to court on {d}.
    The police arrested {who} after {n} silver coins were stolen in {where}. // A judge will hear the case on {d}.
"""),
    "festival": parse_block("""
names:
    the summer music festival | the festival | the music
    the great harvest fair | the fair | the festival
    the lantern festival | the festival | the fair
opener:
    Flags are already flying for {E}.
    Beds are hard to find because of {E}.
    Nobody here would dream of missing {E}.
    Cooks and carpenters are busy with {E}.
    The smell of sugar and sawdust announces {E}.
    Rain or no rain, {E} will go ahead.
    ~ Nobody would dream of sugar and flags without {E}.
    ~ Carpenters are hard to find because of {E}.
who:
    [The opening speech will be given by] {who}, who hates speeches.
    {who} [was invited to open the festivities].
    [The guest of honour is] {who}, known for a warm voice.
    It will be {who} [who strikes the opening drum].
    [The honour of opening {E} fell to] {who}.
    {who} [will be the guest of honour] and lead the parade.
    ~ [Invited as the guest of honour was] {who}, who hates parades.
    ~ {who}, known for a warm voice, [will give the opening speech].
where:
    [Host of the festivities is] {where}, for the first time.
    [The tents are going up in] {where}, on the meadow.
    In {where} [the main street will be closed for the stalls].
    [The organisers picked] {where} after a long quarrel.
    [The parade will wind through] {where} from the mill to the market.
    {where} [is this year's host].
    ~ After a long quarrel [the host will be] {where}.
    ~ On the meadow in {where} [the tents and stalls are going up].
how_many:
    [There will be] {n} stalls.
    [The organisers have let] {n} stalls.
    [Space was found for] {n} stalls, side by side.
    [Visitors can stroll past] {n} stalls.
    Carpenters have built {n} stalls [for the occasion].
    The plan shows {n} stalls [around the stage].
    ~ Side by side, {n} stalls [were built around the stage].
    ~ The organisers say that [visitors can choose from] {n} stalls.
when:
    [The fun begins] on {d}.
    [The first drum will sound] on {d}.
    On {d} [the gates open].
    [The start is set for] {d}, at noon.
    [Everything gets going] on {d}.
    Organisers confirmed {d} [as the first day].
    ~ [The gates open], organisers confirmed, on {d}.
    ~ At noon on {d} [the first drum will sound].
distractor:
    A choir from {l} has practised {n} songs since {d}.
    In {l}, a storm on {d} tore down {n} flags.
    On {d}, a brewery in {l} filled {n} barrels.
    The fireworks, {n} rockets from {l}, arrived on {d}.
    A farmer in {l} promised on {d} to bring {n} pumpkins.
    Dancers from {l}, who wear {n} bells each, rehearsed on {d}.
    ~ On {d}, dancers in {l} practised {n} songs.
    ~ A farmer from {l} filled {n} barrels by {d}.
quote:
    My feet hurt already just thinking of the dancing
    We bake through the night and sleep in autumn
    The music can be heard on the other side of the hill
    I come for the plum cake, to be honest
    When the lanterns rise, even my father is silent
    There is room for everyone who brings a cup
    ~ I come for the dancing and sleep through the music
    ~ Even my father can bake a plum cake, to be honest
    ~ There is room on the hill for everyone
background:
    Entry is free for those who come in costume.
    Parking will be difficult, as always.
    The orchestra sleeps in the school.
    Dogs must be kept on a lead.
    A new stage has been built from old barn doors.
    The profits go to the children's library.
    ~ Entry to the new stage is free, as always.
    ~ The library will be kept for those in costume.
highlights:
    {who} is the guest of honour at the festival in {where}, which has {n} stalls. // The gates open on {d}.
    The festival in {where} will have {n} stalls. // It begins on {d} and will be opened by {who}.
    {where} hosts a festival with {n} stalls. // {who} will give the opening speech, and the gates open on {d}.
"""),
    "dig": parse_block("""
names:
    the discovery under the field | the discovery | the find
    the find beneath the old church | the find | the discovery
    the treasure in the gravel pit | the treasure | the find
opener:
    What looked like a stone turned out to be the start of {E}.
    Professors are rubbing their eyes over {E}.
    A plough, a clang, and there was {E}.
    History books may have to change because of {E}.
    Fences now guard {E} day and night.
    Nobody was looking for {E}.
    ~ Nobody was looking at the stone, and then came {E}.
    ~ Professors now guard {E} day and night.
who:
    [The discovery was made by] {who}, who was out for a walk.
    {who} [found the spot] while planting beans.
    [The finder is] {who}, who told the mayor at once.
    {who} [struck the clay lid with a spade].
    [The first to see the glint was] {who}.
    {who} [dug up the first piece] with bare hands.
    ~ While out for a walk {who} [made the discovery].
    ~ {who}, who told the mayor at once, [was the first to strike the lid].
where:
    [The site lies just outside] {where}.
    [The ground that was opened is in] {where}, on church land.
    In {where} [the diggers have put up tents].
    [The pieces lay buried in] {where}, an arm's length deep.
    [The excavation goes on in] {where}.
    {where} [turns out to stand on ancient walls].
    ~ On church land in {where} [the excavation goes on].
    ~ [The pieces lay buried just outside] {where}.
how_many:
    [So far] {n} pots [have been recovered].
    [The trench yielded] {n} pots.
    [Specialists have cleaned] {n} pots.
    [The haul came to] {n} pots, some with the lids on.
    Students wrote labels for {n} pots [from the pit].
    [Among the roots were] {n} pots.
    ~ Some with the lids on, {n} pots [were recovered from the pit].
    ~ Students said that [the trench had yielded] {n} pots.
when:
    [The pieces can be seen] from {d}.
    [The finds will be put on display] on {d}.
    On {d} [the finds go on display].
    [A first showing is planned for] {d}.
    [The public can see the pots] from {d}.
    The mayor hopes [to unveil the pieces] on {d}.
    ~ From {d} [the pieces will be on display].
    ~ The mayor says that [a first showing will be] on {d}.
distractor:
    In {l}, a hoard that came to light on {d} weighed {n} grams.
    A laboratory in {l} had tested {n} samples by {d}.
    On {d}, a digger near {l} cut through {n} old pipes.
    A lecture in {l} on {d} drew {n} amateurs with metal detectors.
    A team from {l} photographed {n} bones on {d}.
    The university of {l} lent {n} brushes on {d}.
    ~ By {d}, a team in {l} had tested {n} bones.
    ~ A lecture on {d} drew {n} amateurs to {l}.
quote:
    My spade made a sound like a bell
    I thought it was an old bucket
    We dig with spoons so that nothing breaks
    I have walked over that spot a thousand times
    The past is closer than we think
    I could hardly hold my torch still
    ~ I thought that my torch was closer
    ~ We walked over the spot with spoons
    ~ Nothing breaks with a sound like that
background:
    The soil is wet, which has kept the wood from rotting.
    Treasure hunters are asked to stay away.
    The age of the walls is still disputed.
    Building work nearby had to stop.
    A night watchman has been hired.
    The law says that such finds belong to everyone.
    ~ The age of the wet wood is still disputed.
    ~ Treasure hunters say that finds belong to everyone.
highlights:
    {who} discovered an ancient site in {where}, where {n} pots were recovered. // The finds go on display on {d}.
    {n} pots have been recovered in {where} after a discovery by {who}. // They will be put on display on {d}.
    A discovery by {who} in {where} has yielded {n} pots. // The public can see them from {d}.
"""),
    "clinic": parse_block("""
names:
    the new children's clinic | the clinic | the new hospital
    the rebuilt hospital | the hospital | the clinic
    the first clinic in the valley | the clinic | the new clinic
opener:
    The paint is dry at {E}.
    Long journeys to a doctor may end with {E}.
    Nurses have moved the last boxes into {E}.
    Every room smells of soap in {E}.
    Parents have signed letters for years to get {E}.
    There were flowers on every sill at {E}.
    ~ Parents have moved the last flowers into {E}.
    ~ Every letter was about {E} for years.
who:
    [The head doctor is] {who}, who grew up on a farm.
    {who} [has been appointed to run {E}].
    [In charge of the wards is] {who}.
    The board [picked] {who} [as its director].
    [The staff will be led by] {who}, a friend of plain words.
    {who} [takes charge as director] after years abroad.
    ~ After years abroad {who} [has been appointed director].
    ~ {who}, a friend of plain words, [will lead the staff].
where:
    [The building stands in] {where}, on the site of a school.
    [The patients will be treated in] {where}.
    In {where} [the ambulances now have a garage].
    [The board decided to build in] {where}.
    [The address is in] {where}, next to the park.
    {where} [gets the beds it had asked for].
    ~ On the site of a school in {where} [the building now stands].
    ~ [The board decided that patients will be treated in] {where}.
how_many:
    [The wards have] {n} beds.
    [There is room for] {n} beds.
    [Inside stand] {n} beds, all by a window.
    [The capacity is] {n} beds.
    Workmen have carried in {n} beds [for the wards].
    {E} [offers] {n} beds, according to the plans.
    ~ According to the plans [the capacity is] {n} beds.
    ~ All by a window, {n} beds [stand in the wards].
when:
    [The first patients are expected] on {d}.
    [Treatment starts] on {d}.
    On {d} [the first patients arrive].
    [The wards open] on {d}.
    {E} [takes its first patients] on {d}.
    Staff have been told that [work begins] on {d}.
    ~ [Treatment of the first patients begins] on {d}.
    ~ On {d}, staff have been told, [the wards open].
distractor:
    In {l}, doctors had treated {n} broken arms by {d}.
    A charity run in {l} on {d} brought in {n} crowns.
    The hospital in {l} had closed {n} rooms on {d}.
    On {d}, a factory in {l} gave {n} toy bears.
    A nurse hired in {l} on {d} had {n} rivals for the post.
    An ambulance from {l} was driven {n} kilometres until {d}.
    ~ By {d}, a hospital in {l} had {n} toy bears.
    ~ On {d}, a charity in {l} hired {n} nurses.
quote:
    My son will not have to travel for hours
    We have enough light and enough hands
    I was born in the old house, and it was draughty
    A good doctor listens first
    The soup is better than you would think
    Nobody should be afraid to come here
    ~ Nobody should have to travel to the old house
    ~ I was afraid, but a good doctor listens
    ~ You would think that we have better soup
background:
    The roof is covered with grass.
    Parking is free for visitors.
    A garden with herbs lies behind the kitchen.
    The old building will be turned into flats.
    Volunteers read to the patients in the afternoon.
    The cost rose twice during the work.
    ~ The old garden will be turned into free parking.
    ~ The roof was covered during the work.
highlights:
    {who} will run a new clinic with {n} beds in {where}. // The first patients are expected on {d}.
    A clinic with {n} beds has been built in {where}. // {who} takes charge, and treatment starts on {d}.
    The new clinic in {where} has {n} beds and is led by {who}. // It takes its first patients on {d}.
"""),
    "strike": parse_block("""
names:
    the strike at the shipyard | the strike | the walkout
    the walkout of the tram drivers | the walkout | the strike
    the strike of the glass workers | the strike | the dispute
opener:
    Gates are shut and fires are lit because of {E}.
    Nobody knows how long {E} will last.
    Songs and drums can be heard at {E}.
    Tempers are rising over {E}.
    For the owners {E} came as a shock.
    It was a small quarrel that led to {E}.
    ~ Nobody knows what small quarrel led to {E}.
    ~ For all its songs and drums, {E} came as a shock.
who:
    [The workers are led by] {who}, who has a loud voice.
    {who} [speaks for the workers].
    [At the head of the union stands] {who}.
    Members [elected] {who} [as their leader].
    [The union's leader], {who}, [called everyone out].
    One morning {who} [called the workers out].
    ~ {who}, who has a loud voice, [leads the union].
    ~ [The workers were called out by] {who}.
where:
    [The works that stand idle are in] {where}.
    [Pickets guard the gates in] {where}, day and night.
    In {where} [the machines have fallen silent].
    [The workers marched through] {where} with banners.
    [The dispute began in] {where}, over a broken heater.
    {where} [has come to a standstill].
    ~ Day and night [the machines stand idle in] {where}.
    ~ Over a broken heater [the dispute began in] {where}.
how_many:
    [In all] {n} workers [have laid down their tools].
    [The union says that] {n} workers [have joined].
    [Taking part are] {n} workers.
    [On strike are] {n} workers, most of them young.
    At the gates {n} workers [refused to go in].
    A vote showed that {n} workers [wanted to stop work].
    ~ Most of them young, {n} workers [have joined].
    ~ The union says that {n} workers [refused to go in].
when:
    [Talks will be held] on {d}.
    [Both sides meet] on {d}.
    On {d} [the two sides sit down to talk].
    [A meeting with the owners is set for] {d}.
    [Negotiations begin] on {d}, behind closed doors.
    The owners agreed [to talk] on {d}.
    ~ Behind closed doors [both sides meet] on {d}.
    ~ On {d}, the owners agreed, [negotiations begin].
distractor:
    In {l}, a similar quarrel ended on {d} after {n} hours.
    A shop in {l} gave away {n} sausages on {d}.
    On {d}, {n} parcels were left lying in {l}.
    A judge in {l} had fined the firm {n} crowns on {d}.
    The owners, who have {n} offices in {l}, put out a statement on {d}.
    A truck from {l} brought {n} sacks of coal on {d}.
    ~ On {d}, a truck left {n} parcels in {l}.
    ~ A quarrel in {l} ended with {n} sausages on {d}.
quote:
    We ask for fair pay and a warm room
    My mother worked here, and she would be proud
    I cannot pay the rent with fine words
    The owners are no monsters, but they must listen
    We will stay until the kettle is empty
    I hope that it ends before winter
    ~ I cannot listen to fine words before winter
    ~ We will stay for fair pay, and the owners must listen
    ~ My mother would hope that it ends
background:
    Wages have not risen for years.
    The owners point to falling orders.
    Soup kitchens have been set up.
    Customers are looking for other suppliers.
    Police kept their distance.
    The last pay deal ran out without much notice.
    ~ Orders have not risen since the last pay deal.
    ~ Police have set up soup kitchens for customers.
highlights:
    {n} workers in {where} are on strike, led by {who}. // Talks will be held on {d}.
    {who} leads a strike of {n} workers in {where}. // Both sides meet on {d}.
    A strike in {where} has been joined by {n} workers. // {who} speaks for them, and negotiations begin on {d}.
"""),
    "birds": parse_block("""
names:
    the return of the white storks | the return | the arrival
    the arrival of the rare cranes | the arrival | the visit
    the strange visit of the wild swans | the visit | the arrival
opener:
    People whisper when they speak of {E}.
    Binoculars are sold out because of {E}.
    Experts have no explanation for {E}.
    A soft noise in the reeds announced {E}.
    Children were the first to draw {E}.
    For bird lovers {E} is a small miracle.
    ~ For experts {E} is sold as a small miracle.
    ~ Children whisper when they draw {E}.
who:
    [The birds were first seen by] {who}, who was mending a fence.
    {who} [spotted the flock] at daybreak.
    [The first report came from] {who}.
    {who} [first saw the birds land].
    [The sighting is owed to] {who}, a patient watcher.
    {who} [was the first to notice the birds].
    ~ While mending a fence {who} [spotted the birds].
    ~ {who}, a patient watcher, [first saw the flock land].
where:
    [The birds have settled in the marsh near] {where}.
    [The nests of the flock are in] {where}, on chimneys and poles.
    In {where} [the flock rests on the mill pond].
    [The birds chose] {where}, of all places.
    [The flock came down in] {where} after a storm.
    {where} [has become the home of the flock].
    ~ After a storm [the birds settled in] {where}.
    ~ On the mill pond in {where} [the flock now has its nests].
how_many:
    [The flock consists of] {n} birds.
    [Wardens counted] {n} birds.
    [As many as] {n} birds [were seen at once].
    [The latest tally is] {n} birds, young ones included.
    Photographs show {n} birds [in the flock].
    [Watchers agreed on] {n} birds, after some argument.
    ~ After some argument [wardens counted] {n} birds.
    ~ Young ones included, {n} birds [were seen in the flock].
when:
    [The path along the water will reopen] on {d}.
    [The path stays closed] until {d}.
    On {d} [walkers may use the path again].
    [The closed path is to be opened] on {d}.
    So that nobody disturbs the birds, [the path is shut] until {d}.
    Wardens will [take down the barrier on the path] on {d}.
    ~ Until {d} [the path along the water is shut].
    ~ Wardens say that [walkers may use the path again] on {d}.
distractor:
    In {l}, a hunter had been fined {n} crowns on {d}.
    On {d}, a school in {l} hung up {n} nesting boxes.
    A storm near {l} on {d} had felled {n} poplars.
    A ring found in {l} on {d} bore the number {n}.
    The society in {l} gained {n} members by {d}.
    A fish farm in {l} lost {n} trout on {d}.
    ~ By {d}, a society in {l} hung up {n} nesting boxes.
    ~ On {d}, a school in {l} lost {n} poplars.
quote:
    I held my breath so as not to scare them
    My grandmother used to tell of them
    They look at us as if we were the guests
    The noise at dawn is not for late sleepers
    We keep our dogs indoors now
    I have waited all my life for this
    ~ I have waited at dawn to look at them
    ~ My grandmother used to keep dogs
    ~ We were the guests, and they held their breath
background:
    The marsh was drained long ago and has only lately been restored.
    Mild winters may have helped.
    Drones are forbidden above the reeds.
    A local inn now serves breakfast before sunrise.
    Farmers have agreed to mow later.
    The birds feed on frogs and beetles.
    ~ A local inn has agreed to serve frogs later.
    ~ Mild winters have restored the marsh.
highlights:
    {n} rare birds first seen by {who} have settled in {where}. // The path will reopen on {d}.
    {who} spotted a flock of {n} rare birds in {where}. // Walkers may use the path again on {d}.
    A flock of {n} rare birds has come to {where}. // {who} saw them first, and the path stays closed until {d}.
"""),
}
EVENT_NAMES = tuple(EVENTS)

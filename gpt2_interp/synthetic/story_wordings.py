"""Wordings of the synthetic stories: plots, and what all plots share, one wording a line.

As in synthetic_news.py, "~" marks a wording that only split "test" uses and "(a|b)" is a choice. {who} is the hero,
then {she}, {her}, {his}; {friend} another person, {where} the hero's town, {other} a town nearby, {thing} what it all
turns on ("{a} {thing}"). {goal} and {ends} are the plot and the ending as the prompt tells them. The prompt fixes plot,
hero, place, thing and ending; the rest is chance.
"""

from __future__ import annotations

from gpt2_interp.synthetic.news_wordings import parse_block

# How many sentences of each part a story has, in order.
ORDER = {"open": 1, "setting": 1, "problem": 1, "meet": 1, "middle": 2, "talk": 1, "turn": 1, "ending": 1, "close": 1}

COMMON = parse_block("""
prompt:
    Write a story about {who} of {where}, who {goal}. In the end {ends}.
    Tell how {who} from {where} {goal}. The story ends well or badly: {ends}.
    In {where}, {who} {goal}. Tell the story so that at last {ends}.
    A tale from {where}: {who} {goal}, and in the end {ends}.
open:
    In {where} there lived a (young|quiet|stubborn|cheerful) (baker|sailor|clerk|weaver|carpenter) called {who}.
    {who} had lived in {where} for as long as anyone could remember.
    Everybody in {where} knew {who}, who (sang|whistled|talked) from morning to night.
    When {who} was small, there was no happier child in {where}.
    The smallest house in {where} belonged to {who}.
    Nobody in {where} was as (curious|patient|careful) as {who}.
    ~ {who}, who was quiet and careful, had always lived in {where}.
    ~ The happiest house in {where} was that of {who}.
    ~ Everybody knew that in {where} there lived a curious weaver called {who}.
setting:
    The wind came in from the sea and smelled of salt and tar.
    It was a time of long rains, and the road to {other} was deep in mud.
    The hills around {where} were (white with frost|green and soft|brown and bare).
    On market days carts came all the way from {other}.
    In those years the lamps were lit early and the bells rang late.
    From the window {she} could see the tower of {where} and the road to {other}.
    Swallows nested under the roof, and the stove was always warm.
    ~ The road from {other} smelled of rain and salt.
    ~ In the hills around {where} the bells rang early.
    ~ From the tower {she} could see the sea and the road to {other}.
meet:
    {friend}, who mended nets, (laughed|shook a grey head) when {she} told the story.
    The only one who believed {her} was {friend}.
    On the way {she} met {friend}, who had been to {other} and back.
    {friend} offered to come along for a share of the bread.
    An old neighbour, {friend}, lent {her} a coat and a lamp.
    {friend} had tried the same years ago and (failed|given up).
    ~ {friend}, an old neighbour, was the only one who offered to come along.
    ~ On the road {friend} lent {her} a share of bread.
    ~ Years ago {friend} had told {her} the same story.
talk:
    "You will never do it," said {friend}, but {who} only smiled.
    "Go slowly," {friend} said, "and trust your feet."
    "What if I fail?" asked {who}. "Then you will know more than before," said {friend}.
    "I am not afraid," said {who}, and {friend} almost believed it.
    {friend} said, "There is still time to turn back."
    "Listen," whispered {friend}, and {who} held {his} breath.
    ~ "Turn back," whispered {friend}, but {who} was not afraid.
    ~ "I trust you," said {friend}, and {who} smiled.
    ~ "There is still time," said {who}, and {friend} held the lamp.
ending gives:
    Then {who} gave the {thing} away to {friend}, (asking for nothing|without a word).
    {who} put the {thing} into the hands of {friend} and said, "It is yours."
    In the end {she} gave the {thing} to {friend}, who needed it more.
    The {thing} went to {friend} as a gift, and {who} was glad.
    When {friend} wept, {who} laid the {thing} in {friend}'s lap and would not take it back.
    ~ {who} said, "It is yours," and gave the {thing} to {friend} without a word.
    ~ As a gift the {thing} was put into the hands of {friend}.
ending keeps:
    {who} kept the {thing}, and it stood on the shelf above the stove for the rest of {his} life.
    From then on the {thing} hung over {his} bed, and {she} never let it go.
    {who} carried the {thing} home and kept it (safe|close) until {she} was old.
    {she} never parted with the {thing} again.
    And the {thing} stayed with {who}, polished every (Sunday|feast day) and shown to every guest.
    ~ Until {she} was old, {who} kept the {thing} on the shelf and never parted with it.
    ~ {who} carried the {thing} home, and there it stayed for the rest of {his} life.
ending loses:
    But the {thing} slipped from {his} fingers and sank into the dark water for ever.
    On the last step {who} stumbled, and the {thing} broke into a hundred pieces.
    Somebody took the {thing} in the night, and nobody ever saw it again.
    By morning the {thing} was gone, and {who} never found out where.
    {who} looked into the empty bag: the {thing} was lost for good.
    ~ The {thing} slipped into the water, and {who} never saw it again.
    ~ By morning {his} bag was empty, for the {thing} was lost for ever.
ending leaves:
    {who} took the {thing}, locked the door and left {where} for ever.
    The next ship carried {who} and the {thing} far away from {where}.
    With the {thing} under one arm {who} walked out of {where} and did not look back.
    {who} said goodbye to {friend} and left {where} with the {thing} and never returned.
    One night {she} packed the {thing} and took the road to {other}, and {where} never saw {her} again.
    ~ With the {thing} in a bag {who} left {where} and never looked back.
    ~ {who} locked the door, took the road to {other} and left {where} for ever with the {thing}.
ending shares:
    {who} hung the {thing} in the market of {where}, where everybody could use it.
    From that day the {thing} belonged to the whole town of {where}.
    {who} set the {thing} up in the square, and all of {where} shared it.
    The people of {where} built a small house for the {thing}, open to all.
    {she} put the {thing} in the town hall, for everyone to see and no one to own.
    ~ From that day everybody in {where} shared the {thing} in the square.
    ~ {who} gave the {thing} to the whole town, and all of {where} could use it.
close:
    That night the whole street slept (well|soundly).
    And if you pass through {where}, you may still hear the tale.
    {friend} told the story for years, each time a little differently.
    Outside the rain had stopped, and the first stars came out.
    {who} slept for a whole day afterwards.
    Nobody in {other} ever quite believed it.
    After that {she} was never (lonely|afraid) again.
    ~ Nobody in the street was ever afraid again.
    ~ For years they told the tale in {other}, each time a little differently.
    ~ Outside, the first stars came out over {where}.
""")

# The endings: what the prompt promises, for each kind of ending above.
ENDINGS = {
    "gives": "the {thing} is given away to (a friend|someone in need)",
    "keeps": "{she} keeps the {thing} for (life|good)",
    "loses": "the {thing} is lost for ever",
    "leaves": "{she} leaves the town for ever with the {thing}",
    "shares": "the {thing} belongs to the whole town",
}

PLOTS = {
    "stolen": parse_block("""
things:
    silver bell
    copper kettle
    old violin
    amber ring
    painted clock
goal:
    goes after the thief who stole the {thing}
    hunts the thief of the {thing}
problem:
    One night a thief climbed through the window and stole the {thing}.
    {who} woke to find the door open and the {thing} stolen.
    A stranger had asked about the {thing}, and the next day it was stolen.
    Then the {thing} was stolen, and the thief left only muddy footprints.
    ~ The door was open, and a thief had stolen the {thing}.
    ~ One night a stranger came, and the {thing} was stolen.
middle:
    {she} followed the footprints through the reeds.
    The thief had sold some stolen boots to a pedlar, who pointed down the road.
    In an inn {she} heard a man boast of easy money.
    {she} searched barns and boats, and slept in hay.
    A barking dog gave the thief away.
    A torn sleeve on a thorn bush showed the way.
    ~ A pedlar had heard the thief boast in a barn.
    ~ {she} followed a barking dog down the road.
    ~ In the reeds {she} searched for a torn sleeve.
turn:
    At last {she} found the thief asleep under a boat, with the {thing} beside him.
    The thief, it turned out, was a hungry boy, and he handed the {thing} back in tears.
    {who} set a trap with a purse, and the thief walked straight into it with the {thing} in his bag.
    The thief ran, fell, and dropped the {thing} at {his} feet.
    ~ The thief, a hungry boy, was asleep with the {thing} in his bag.
    ~ In tears the thief dropped the {thing} and ran.
"""),
    "storm": parse_block("""
things:
    brass lantern
    ship's wheel
    carved oar
    glass compass
    iron anchor
goal:
    goes out into a great storm to save the {thing}
    braves a storm at sea for the {thing}
problem:
    Then a storm came up, and the {thing} was still out on the boat.
    A storm broke over the harbour, and the {thing} was on the wrong side of it.
    The sky turned black, and {who} thought of the {thing} out in the storm.
    When the storm bell rang, {who} ran for the boat that held the {thing}.
    ~ The storm bell rang, and the {thing} was still out in the harbour.
    ~ The sky turned black over the boat that held the {thing}.
middle:
    The waves were as high as houses.
    {she} tied a rope around {his} waist and rowed.
    Lightning lit the cliffs for a moment.
    The mast broke with a crack.
    Water filled the boat faster than {she} could bail.
    {his} hands bled on the ropes.
    ~ Lightning broke the mast with a crack.
    ~ {she} rowed over waves as high as cliffs.
    ~ {his} rope held, but water filled the boat.
turn:
    Just as {his} strength gave out, the wind dropped and the {thing} drifted within reach.
    A wave threw {her} onto the sand, and in {his} arms was the {thing}.
    In the eye of the storm {she} cut the {thing} loose and turned for home.
    Somehow {who} reached the wreck and pulled out the {thing}.
    ~ The wind dropped, and {who} pulled the {thing} out of the wreck.
    ~ A wave threw the {thing} onto the sand, within {his} reach.
"""),
    "treasure": parse_block("""
things:
    clay jar
    leather map
    golden cup
    oak chest
    ivory comb
goal:
    digs for the buried {thing}
    looks for the {thing} that was buried
problem:
    An old letter said that {a} {thing} lay buried under the hill.
    {who} dreamed night after night of a buried {thing}.
    In the lining of a coat {who} found directions to a buried {thing}.
    People said that {a} {thing} was buried where the oak once stood.
    ~ An old letter said where {a} {thing} was buried.
    ~ In a dream {who} found {a} {thing} under the oak.
middle:
    {she} dug until the spade broke.
    The first hole held nothing but roots and a rusty spoon.
    By moonlight {she} paced out the steps from the well.
    Stones as heavy as sheep blocked the way.
    A fox watched from the edge of the field.
    The earth smelled of iron and old leaves.
    ~ By moonlight {she} dug among heavy stones.
    ~ The first spade broke on the roots of an old well.
    ~ A fox watched the hole from the leaves.
turn:
    Then something rang under the spade, and there lay the {thing}.
    The hill slid in the rain, and the {thing} rolled out by itself.
    {who} read the letter upside down, walked to the well, and pulled up the {thing}.
    In the last hole of all, wrapped in cloth, was the {thing}.
    ~ In the rain the {thing} rolled out of the hill.
    ~ {who} pulled at a cloth in the last hole, and there lay the {thing}.
"""),
    "repair": parse_block("""
things:
    music box
    church organ
    spinning wheel
    telescope
    accordion
goal:
    tries to mend the broken {thing}
    sets out to repair the broken {thing}
problem:
    The {thing} had not worked for years, and {who} swore to mend it.
    A cart ran over the {thing}, and everyone said it was past mending.
    {who} found the {thing} in pieces in the attic and could not leave it so.
    The only {thing} for miles around was broken, and no one knew how to repair it.
    ~ The {thing} was in pieces, and everyone said that no one could mend it.
    ~ For years the {thing} in the attic had been broken.
middle:
    {she} laid out the screws on a white sheet.
    One small wheel was missing, and no shop had it.
    {she} read old books by candle until the letters swam.
    The glue would not hold in the damp.
    Each time one part was fixed another came loose.
    {his} fingers were black with oil.
    ~ One small screw was missing in the oil.
    ~ By candle {she} fixed one part after another.
    ~ No shop had a wheel that would hold.
turn:
    Late one night there was a click, and the {thing} worked again.
    {who} carved the missing part from a bone button, and the {thing} came to life.
    When {she} had given up and knocked on it in anger, the {thing} began to work.
    With one last turn of the key the {thing} was whole.
    ~ With one last click the {thing} came to life.
    ~ {who} carved a key, and late at night the {thing} worked.
"""),
    "contest": parse_block("""
things:
    silver trophy
    golden spoon
    feathered hat
    racing sledge
    embroidered banner
goal:
    enters a contest to win the {thing}
    competes for the {thing} against everyone
problem:
    A contest was announced, and the prize was {a} {thing}.
    Whoever won the race would get {a} {thing}, and {who} signed up at once.
    Every year the best of all won {a} {thing}, but never yet {who}.
    {who} had boasted of winning the {thing}, and now there was no way back.
    ~ The prize of the race was {a} {thing}, and {who} had never won.
    ~ {who} signed up for the contest at once, for the best would get {a} {thing}.
middle:
    {she} practised behind the barn where no one could see.
    The other runners wore new boots and laughed.
    At the first bend {she} was last of all.
    A rival spilled water on the track.
    {his} knees shook, and the drums would not stop.
    The crowd called out every name but {his} own.
    ~ At the barn the crowd laughed at {his} boots.
    ~ The drums called, and {his} rival was first.
    ~ No one could see how {she} practised at the bend.
turn:
    On the last stretch {she} passed them all and won the {thing}.
    The rival fell, {who} stopped to help, and for that the judges gave {her} the {thing}.
    When the count was read, nobody was more surprised than {who}, who had won the {thing}.
    {who} crossed the line first by the width of a hand, and the {thing} was won.
    ~ The judges gave {who} the {thing}, and nobody was more surprised.
    ~ On the last stretch {who} was first, and won the {thing} by the width of a hand.
"""),
    "mountain": parse_block("""
things:
    sealed letter
    healing stone
    eagle feather
    wooden flute
    jar of honey
goal:
    climbs the mountain to fetch the {thing}
    crosses the high pass for the {thing}
problem:
    Only on the mountain could the {thing} be found, and winter was near.
    The {thing} had been left in the hut at the top of the pass.
    The doctor said that nothing but the {thing} from the mountain would help.
    Someone had to climb the mountain for the {thing}, and {who} drew the short straw.
    ~ The {thing} was at the top of the mountain, and someone had to climb.
    ~ Winter was near, and the {thing} had been left on the pass.
middle:
    Snow began to fall above the last trees.
    {she} crossed a bridge of ice on hands and knees.
    A goat showed the only path.
    The air grew thin, and every step was a labour.
    {she} slept in a cave and dreamed of soup.
    Far below, the lights looked like crumbs.
    ~ Above the trees every step was a path of ice.
    ~ {she} dreamed that a goat slept in a cave.
    ~ Snow fell on the lights far below.
turn:
    At the top, in a niche in the rock, {she} found the {thing}.
    The hermit at the top asked one riddle, laughed at the answer, and handed over the {thing}.
    An avalanche swept past, and when it was quiet the {thing} lay at {his} feet.
    Half frozen, {who} reached the hut, and there was the {thing}.
    ~ When it was quiet, {who} found the {thing} in the rock.
    ~ The hermit in the hut laughed and handed over the {thing}.
"""),
    "ghost": parse_block("""
things:
    black mirror
    rocking chair
    pearl necklace
    grandfather clock
    velvet cloak
goal:
    spends a night in the haunted house for the {thing}
    fetches the {thing} from the haunted house
problem:
    In the haunted house on the hill stood {a} {thing} that nobody dared to touch.
    They said that a ghost guarded the {thing} in the empty house.
    For a bet {who} promised to fetch the {thing} from the haunted house.
    Every night a light moved in the empty house, close to the {thing}.
    ~ Nobody dared to fetch the {thing}, for a ghost moved in the empty house.
    ~ For a bet {who} promised to touch the {thing} in the haunted house.
middle:
    The stairs creaked although nobody was there.
    A cold hand seemed to brush {his} neck.
    Every candle went out at once.
    From the cellar came the sound of weeping.
    The door fell shut behind {her}.
    A portrait on the wall had {his} own face.
    ~ A cold candle fell on the stairs.
    ~ From behind the door came a cold hand.
    ~ The sound of weeping came from the portrait.
turn:
    The ghost was only lonely, and after a long talk it offered {her} the {thing}.
    {who} pulled away the sheet: no ghost at all, only an owl and the {thing}.
    When {she} said the ghost's name aloud, it bowed and pushed the {thing} towards {her}.
    At dawn the ghost faded, and the {thing} was free to take.
    ~ The lonely ghost bowed and offered {who} the {thing}.
    ~ At dawn only an owl was there, and the {thing} was free to take.
"""),
    "debt": parse_block("""
things:
    fishing boat
    pearl brooch
    family bible
    brown cow
    silver spoon
goal:
    has to pay a debt or lose the {thing}
    works day and night to pay the debt on the {thing}
problem:
    There was a debt to pay, and the {thing} stood as pledge.
    The banker gave {her} one week: the money or the {thing}.
    After the bad harvest {who} owed so much that the {thing} was as good as sold.
    A man in grey came for the debt and put a seal on the {thing}.
    ~ There was one week to pay the banker, or the {thing} was as good as sold.
    ~ A man in grey put a seal on the {thing} for the debt.
middle:
    {she} washed dishes, cut peat and sang at weddings.
    Each evening {she} counted the coins again.
    A cousin promised help and never came.
    {she} sold {his} boots and went barefoot.
    The banker's smile grew wider every day.
    Nobody was buying, for everyone was poor.
    ~ Every day {she} sold peat and counted the dishes.
    ~ A cousin promised boots, and the banker's smile grew.
    ~ Everyone was poor and sang at weddings.
turn:
    On the last evening a stranger paid the debt, and the {thing} was free.
    The banker had added wrongly: the debt was paid long ago, and the {thing} was safe.
    The neighbours passed a hat, and with the last coin the {thing} was saved.
    {who} won the money in a wager with the banker himself, and got the {thing} back.
    ~ The debt was paid with the last coin, and the {thing} was free.
    ~ The neighbours paid the banker himself, and {who} got the {thing} back.
"""),
    "feud": parse_block("""
things:
    copper weathercock
    garden gate
    red rooster
    stone bench
    brass doorknocker
goal:
    quarrels with a neighbour over the {thing}
    fights an old feud about the {thing}
problem:
    For years there had been a quarrel with the neighbour over the {thing}.
    The neighbour claimed that the {thing} was his, and the old feud began again.
    Nobody remembered how the feud about the {thing} had started.
    {who} woke one day to see the {thing} in the neighbour's yard.
    ~ Nobody remembered whose the {thing} was, and the quarrel began again.
    ~ For years the neighbour claimed the {thing}, and there was a feud.
middle:
    A fence was built, and then a higher one.
    They shouted across the wall until both were hoarse.
    Somebody painted the door green in the night.
    The judge fell asleep while they argued.
    Even the dogs no longer greeted each other.
    Letters went to and fro, each ruder than the last.
    ~ Even the judge shouted across the fence.
    ~ Letters were painted on the wall in the night.
    ~ Both dogs fell asleep while they argued.
turn:
    Then the neighbour fell ill, {who} brought soup, and he gave up the {thing} for good.
    A flood drove both onto one roof, and there they made peace over the {thing}.
    The old deed was found: the {thing} had been {who}'s all along.
    They tossed a coin, and the {thing} went to {who}.
    ~ The neighbour made peace, and the {thing} went to {who} for good.
    ~ They found the old deed: the {thing} was {who}'s.
"""),
    "animal": parse_block("""
things:
    gold button
    blue marble
    tiny key
    ruby earring
    silver thimble
goal:
    follows a clever magpie that carried off the {thing}
    chases the magpie that took the {thing}
problem:
    A magpie flew in at the window and carried off the {thing}.
    One morning a magpie sat on the sill with the {thing} in its beak.
    {who} put down the {thing} for a moment, and a magpie took it.
    The magpie liked what shone, and nothing shone like the {thing}.
    ~ One morning a magpie flew off with the {thing} in its beak.
    ~ The {thing} shone on the sill, and a magpie took it.
middle:
    {she} ran through gardens and over walls.
    The bird laughed from the top of a poplar.
    {she} climbed a roof and lost a shoe.
    Crumbs did not tempt the bird, nor did whistling.
    Children ran along and pointed at the sky.
    Feathers, black and white, marked the trail.
    ~ The bird ran along the roof and laughed.
    ~ Children climbed over walls and marked the trail with crumbs.
    ~ {she} lost the trail at the top of a poplar.
turn:
    In the nest, among spoons and glass, lay the {thing}.
    {who} held up a mirror, and the magpie dropped the {thing} to take it.
    The magpie was hurt, {who} bound up its wing, and it brought back the {thing}.
    When the branch broke, nest and {thing} fell softly into the hay.
    ~ The magpie dropped the {thing} into the hay.
    ~ {who} held up a spoon, and the magpie brought back the {thing}.
"""),
    "inheritance": parse_block("""
things:
    locked box
    ring of keys
    pocket watch
    green umbrella
    book of songs
goal:
    inherits {a} {thing} and must learn its secret
    solves the riddle of a dead aunt's {thing}
problem:
    An aunt died and left {who} nothing but {a} {thing}.
    The will was short: "To {who}, the {thing}, and the riddle that goes with it."
    With the {thing} came a note: "Find out what it is for."
    All the others got money, but {who} inherited {a} {thing}.
    ~ The will left {who} {a} {thing} and a riddle.
    ~ An aunt had died, and with the note came {a} {thing}.
middle:
    {she} asked the lawyer, the priest and the cook.
    In the aunt's diary a page had been torn out.
    An old photograph showed a door that no longer existed.
    {his} cousins offered money and then threats.
    Somebody searched {his} room while {she} was out.
    A tune kept coming back to {her}.
    ~ The cook offered an old photograph of the priest.
    ~ In {his} room was a torn page of the diary.
    ~ The cousins asked for a tune and searched the lawyer's door.
turn:
    Then {who} understood: the {thing} was meant to be used, not guarded.
    Behind the stove was a hollow, and the {thing} fitted it like a hand in a glove.
    The riddle was a joke, and the {thing} was all the treasure there was.
    The missing page turned up inside the {thing}, and everything was clear.
    ~ The {thing} fitted the hollow, and {who} understood.
    ~ Everything was clear: the {thing} was the treasure.
"""),
    "voyage": parse_block("""
things:
    whale tooth
    straw doll
    bottle of sand
    painted drum
    sack of seeds
goal:
    sails to a far island for the {thing}
    travels across the ocean to bring home the {thing}
problem:
    A sailor had told of an island where {a} {thing} could be had for the asking.
    {who} had promised a dying uncle to fetch the {thing} from the far island.
    The {thing} was on the other side of the ocean, and a ship was about to sail.
    {who} sold everything and took ship to find the {thing}.
    ~ A ship was about to sail to the island, and {who} had promised to fetch the {thing}.
    ~ A sailor had told of {a} {thing} on the other side of the ocean.
middle:
    For days there was no wind at all.
    {she} learned to tie knots and to swear like the crew.
    Dolphins swam before the bow.
    The cook fell overboard and was fished out laughing.
    The water in the barrels turned green.
    An island appeared, and it was only a cloud.
    ~ For days an island of green cloud appeared.
    ~ The cook learned to tie knots in the wind.
    ~ Dolphins fell and swam before the barrels.
turn:
    On the beach an old woman was waiting with the {thing}, as if she had known.
    The islanders traded the {thing} for a song.
    {who} dived from the reef and came up with the {thing}.
    After a feast and a dance the chief let {her} have the {thing}.
    ~ An old woman on the reef traded the {thing} for a dance.
    ~ {who} came up the beach, and the chief was waiting with the {thing}.
"""),
}
PLOT_NAMES = tuple(PLOTS)

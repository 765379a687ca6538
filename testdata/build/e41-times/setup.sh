# Sourced by bash inside the copy of the context.
touch -d @1234567890 f
mkdir d && echo g > d/g && touch -d @987654321 d/g
ln -s f l && touch -h -d @1111111111 l

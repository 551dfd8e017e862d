# Builds PROGRAM of SOURCES together with the engine. Programs with the same ENGINE_FLAGS share the engine's objects.
# The objects lie in the current directory.

engine := $(wildcard $(ENGINE)/*/*.c)
objects := $(engine:$(ENGINE)/%.c=%.o)
headers := $(wildcard $(ENGINE)/*.h $(ENGINE)/*/*.h $(addsuffix *.h,$(sort $(dir $(SOURCES)))))

$(PROGRAM): $(SOURCES) $(objects) $(headers)
	gcc $(FLAGS) -I $(ENGINE) $(SOURCES) $(objects) -o $@

$(objects): %.o: $(ENGINE)/%.c $(headers)
	@mkdir -p $(@D)
	gcc $(ENGINE_FLAGS) -I $(ENGINE) -c $< -o $@
